"""Addresses that are not sent to any more."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "suppressions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("outbound_uid", sa.Uuid(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("address = lower(address)", name=op.f("suppressions_address_check")),
        sa.CheckConstraint(
            "reason IN ('bounce', 'complaint', 'manual')", name=op.f("suppressions_reason_check")
        ),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("suppressions_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("suppressions_pkey")),
        sa.UniqueConstraint("uid", name=op.f("suppressions_uid_key")),
        schema="mailwright",
    )
    op.create_index(
        "suppressions_address_key",
        "suppressions",
        ["address", "mailbox_id"],
        unique=True,
        schema="mailwright",
        postgresql_nulls_not_distinct=True,
    )
    op.create_index(
        op.f("suppressions_mailbox_id_idx"), "suppressions", ["mailbox_id"], unique=False, schema="mailwright"
    )


def downgrade() -> None:
    op.drop_table("suppressions", schema="mailwright")
