"""Breakers of hosts, and pauses of providers."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "breakers",
        sa.Column("protocol", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("faults", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("trips", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("opened_at", moment, nullable=True),
        sa.Column("retry_at", moment, nullable=True),
        sa.Column("probe_until", moment, nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("slow_until", moment, nullable=True),
        sa.CheckConstraint("protocol IN ('imap', 'smtp')", name=op.f("breakers_protocol_check")),
        sa.CheckConstraint("(opened_at IS NULL) = (retry_at IS NULL)", name=op.f("breakers_open_check")),
        sa.PrimaryKeyConstraint("protocol", "host", name=op.f("breakers_pkey")),
        schema="mailwright",
        postgresql_with={"fillfactor": "70"},
    )
    op.add_column("providers", sa.Column("paused", sa.Text(), nullable=True), schema="mailwright")
    op.add_column("providers", sa.Column("paused_until", moment, nullable=True), schema="mailwright")
    op.add_column("providers", sa.Column("paused_reason", sa.Text(), nullable=True), schema="mailwright")
    for name, check in (
        ("paused", "paused IN ('receiving', 'sending', 'both')"),
        ("pause", "paused IS NOT NULL OR (paused_until IS NULL AND paused_reason IS NULL)"),
    ):
        op.create_check_constraint(
            op.f(f"providers_{name}_check"), "providers", sa.text(check), schema="mailwright"
        )


def downgrade() -> None:
    for name in ("pause", "paused"):
        op.drop_constraint(op.f(f"providers_{name}_check"), "providers", schema="mailwright")
    for column in ("paused_reason", "paused_until", "paused"):
        op.drop_column("providers", column, schema="mailwright")
    op.drop_table("breakers", schema="mailwright")
