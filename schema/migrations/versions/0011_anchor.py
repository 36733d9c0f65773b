"""By what a database is recognised as the one that it was."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "anchor",
        sa.Column("id", sa.BigInteger(), server_default=sa.text("1"), autoincrement=False, nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("cluster", sa.Text(), nullable=False),
        sa.Column("timeline", sa.Text(), nullable=False),
        sa.Column("database", sa.Text(), nullable=False),
        sa.Column("xid", sa.Text(), nullable=False),
        sa.Column("behind", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("anchor_only_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("anchor_pkey")),
        sa.UniqueConstraint("uid", name=op.f("anchor_uid_key")),
        schema="mailwright",
    )


def downgrade() -> None:
    op.drop_table("anchor", schema="mailwright")
