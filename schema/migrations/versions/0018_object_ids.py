"""What a folder is known by when it is renamed: its MAILBOXID, where the server tells one."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("folders", sa.Column("object_id", sa.Text(), nullable=True), schema="mailwright")


def downgrade() -> None:
    op.drop_column("folders", "object_id", schema="mailwright")
