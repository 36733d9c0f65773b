"""Doubt, settled: what became of each recipient in an attempt, the evidence, and the search in Sent."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

KINDS = "'append_sent', 'append', 'mark', 'move', 'copy', 'delete'"


def upgrade() -> None:
    for name, kind in (
        ("told", postgresql.JSONB(astext_type=sa.Text())),
        ("evidence", sa.Text()),
        ("settled_at", sa.DateTime(timezone=True)),
    ):
        op.add_column("attempts", sa.Column(name, kind, nullable=True), schema="mailwright")
    op.create_index(
        "attempts_doubtful",
        "attempts",
        ["outbound_id"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("outcome = 'uncertain'"),
    )
    _kinds(f"{KINDS}, 'seek_sent'")


def downgrade() -> None:
    op.execute("DELETE FROM mailwright.commands WHERE kind = 'seek_sent'")
    _kinds(KINDS)
    op.drop_index("attempts_doubtful", table_name="attempts", schema="mailwright")
    for name in ("settled_at", "evidence", "told"):
        op.drop_column("attempts", name, schema="mailwright")


def _kinds(kinds: str) -> None:
    name = op.f("commands_kind_check")
    op.drop_constraint(name, "commands", type_="check", schema="mailwright")
    op.create_check_constraint(name, "commands", f"kind IN ({kinds})", schema="mailwright")
