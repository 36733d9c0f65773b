"""Delivery reports and complaints, each with the message that brought it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reports",
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("envelope_id", sa.Text(), nullable=True),
        sa.Column("original_message_id", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Text(), nullable=True),
        sa.Column("recipients", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('delivery', 'complaint')", name=op.f("reports_kind_check")),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["mailwright.messages.id"],
            name=op.f("reports_message_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("message_id", name=op.f("reports_pkey")),
        schema="mailwright",
    )
    op.create_index(
        "reports_unsettled",
        "reports",
        ["message_id"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("settled_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("reports", schema="mailwright")
