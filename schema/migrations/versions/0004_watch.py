"""Watchers, and which mailbox each of them listens to."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "watchers",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sessions", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("most", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("watchers_pkey")),
        schema="mailwright",
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "watches",
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("watcher", sa.Text(), nullable=True),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("connected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("watches_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("mailbox_id", name=op.f("watches_pkey")),
        schema="mailwright",
    )
    for name, column, where in (
        ("watches_free", "retry_at", "watcher IS NULL"),
        ("watches_watcher", "watcher", "watcher IS NOT NULL"),
        ("watches_account", "account", "watcher IS NOT NULL"),
    ):
        op.create_index(
            name, "watches", [column], unique=False, schema="mailwright", postgresql_where=sa.text(where)
        )


def downgrade() -> None:
    op.drop_table("watches", schema="mailwright")
    op.drop_table("watchers", schema="mailwright")
