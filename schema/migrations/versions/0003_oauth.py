"""OAuth 2.0: where consent is asked for, and the sealed tokens that it gave."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ADDRESSES = ("oauth_authorization_url", "oauth_device_url")


def upgrade() -> None:
    for name in ADDRESSES:
        op.add_column("providers", sa.Column(name, sa.Text(), nullable=True), schema="mailwright")
        op.create_check_constraint(
            op.f(f"providers_{name}_check"),
            "providers",
            f"{name} ~ '^https://[^ ]+$' OR {name} ~ '^http://(localhost|127[.]0[.]0[.]1|[[]::1[]])[:/]'",
            schema="mailwright",
        )
    op.create_table(
        "mailbox_tokens",
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("refresh_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "doubted", postgresql.ARRAY(postgresql.TEXT()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "authorized_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("mailbox_tokens_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("mailbox_id", name=op.f("mailbox_tokens_pkey")),
        schema="mailwright",
    )


def downgrade() -> None:
    op.drop_table("mailbox_tokens", schema="mailwright")
    for name in reversed(ADDRESSES):
        op.drop_constraint(op.f(f"providers_{name}_check"), "providers", schema="mailwright", type_="check")
        op.drop_column("providers", name, schema="mailwright")
