"""What a folder's changes are told by: overlapping passes, doubt in MODSEQs, ids of folders and mails, labels."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

SCHEMA = "mailwright"
IDS = (("messages_gmail_id", "gmail_id"), ("messages_email_id", "email_id"))


def upgrade() -> None:
    op.add_column("folder_epochs", sa.Column("modseq_before", sa.BigInteger(), nullable=True), schema=SCHEMA)
    op.add_column(
        "folder_epochs", sa.Column("doubted_at", sa.DateTime(timezone=True), nullable=True), schema=SCHEMA
    )
    op.add_column("folders", sa.Column("object_id", sa.Text(), nullable=True), schema=SCHEMA)
    op.add_column("places", sa.Column("labels", sa.ARRAY(sa.Text()), nullable=True), schema=SCHEMA)
    for name, column in IDS:
        op.create_index(
            name,
            "messages",
            ["mailbox_id", column],
            unique=False,
            schema=SCHEMA,
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )


def downgrade() -> None:
    for name, _ in IDS:
        op.drop_index(name, table_name="messages", schema=SCHEMA)
    op.drop_column("places", "labels", schema=SCHEMA)
    op.drop_column("folders", "object_id", schema=SCHEMA)
    op.drop_column("folder_epochs", "doubted_at", schema=SCHEMA)
    op.drop_column("folder_epochs", "modseq_before", schema=SCHEMA)
