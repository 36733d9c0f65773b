"""A message is found by what its server knows its content by: EMAILID, or X-GM-MSGID, in one column."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

SCHEMA = "mailwright"


def upgrade() -> None:
    op.drop_column("messages", "gmail_id", schema=SCHEMA)
    op.create_index(
        "messages_email_id",
        "messages",
        ["mailbox_id", "email_id"],
        schema=SCHEMA,
        postgresql_where=sa.text("email_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("messages_email_id", "messages", schema=SCHEMA)
    op.add_column("messages", sa.Column("gmail_id", sa.BigInteger(), nullable=True), schema=SCHEMA)
