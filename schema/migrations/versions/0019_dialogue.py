"""An attempt keeps its dialogue: the step, code, milliseconds and number of each exchange; never a word of it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("dialogue", JSONB, nullable=True), schema="mailwright")


def downgrade() -> None:
    op.drop_column("attempts", "dialogue", schema="mailwright")
