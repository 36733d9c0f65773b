"""The words of messages, and which messages wait for being indexed; those that are there wait at once."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "message_search",
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("words", postgresql.TSVECTOR(), nullable=False),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["mailwright.messages.id"],
            name=op.f("message_search_message_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("message_id", name=op.f("message_search_pkey")),
        schema="mailwright",
    )
    op.create_index(
        "message_search_words",
        "message_search",
        ["words"],
        unique=False,
        schema="mailwright",
        postgresql_using="gin",
    )
    op.create_table(
        "search_backlog",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("message_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("search_backlog_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("search_backlog_pkey")),
        schema="mailwright",
    )
    op.create_index(
        op.f("search_backlog_mailbox_id_idx"),
        "search_backlog",
        ["mailbox_id"],
        unique=False,
        schema="mailwright",
    )
    op.create_index("search_backlog_due", "search_backlog", ["due_at"], unique=False, schema="mailwright")
    op.execute("""
        INSERT INTO mailwright.search_backlog (mailbox_id, message_ids)
        SELECT mailbox_id, array_agg(id) FROM (
            SELECT id, mailbox_id, row_number() OVER (PARTITION BY mailbox_id ORDER BY id) AS n
            FROM mailwright.messages WHERE state <> 'deleted'
        ) AS there
        GROUP BY mailbox_id, (n - 1) / 50
    """)


def downgrade() -> None:
    op.drop_table("search_backlog", schema="mailwright")
    op.drop_table("message_search", schema="mailwright")
