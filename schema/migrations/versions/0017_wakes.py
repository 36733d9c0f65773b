"""A lane knows since when its messages wait, so that what is over need not be stepped over; whatever brings a
message back leaves a wake."""

import sqlalchemy as sa
from alembic import op

from schema.functions import source

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

COLUMN = "none_due_before"


def upgrade() -> None:
    column = sa.Column(
        COLUMN, sa.DateTime(timezone=True), server_default=sa.text("'-infinity'"), nullable=False
    )
    op.add_column("outbox_lanes", column, schema="mailwright")
    op.execute(source("wakes"))


def downgrade() -> None:
    op.execute("DROP TRIGGER outbox_wakes ON mailwright.outbox")
    op.execute("DROP FUNCTION mailwright.leave_wake()")
    op.drop_column("outbox_lanes", COLUMN, schema="mailwright")
