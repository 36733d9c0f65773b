"""A claim writes nothing any more, so no message is *claimed*; what changes with every attempt has fewer indexes,
and room on its page for the change."""

import sqlalchemy as sa
from alembic import op

from schema.functions import source

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

STATES = "'queued', 'armed', 'deferred', 'held', 'sent', 'failed', 'uncertain', 'cancelled', 'expired'"
CLAIMED = "WHEN 'claimed' THEN NEW.state IN ('armed', 'cancelled', 'expired', 'failed', 'queued', 'sent')"
ROOM = {"outbox_recipients": 70, "attempts": 60, "data_started": 60}


def upgrade() -> None:
    op.execute("UPDATE mailwright.outbox SET state = 'queued', lease_token = NULL WHERE state = 'claimed'")
    _check(STATES)
    op.execute(source("moves"))
    _in_hand("state = 'armed'")
    _message_id("message_id IS NOT NULL")
    op.drop_index("attempts_doubtful", table_name="attempts", schema="mailwright")
    for table, part in ROOM.items():
        op.execute(f"ALTER TABLE mailwright.{table} SET (fillfactor = {part})")


def downgrade() -> None:
    for table in ROOM:
        op.execute(f"ALTER TABLE mailwright.{table} RESET (fillfactor)")
    op.create_index(
        "attempts_doubtful",
        "attempts",
        ["outbound_id"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("outcome = 'uncertain'"),
    )
    _message_id(None)
    _in_hand("state IN ('claimed', 'armed')")
    _check(STATES.replace("'armed'", "'claimed', 'armed'"))
    moves = source("moves").replace(
        "IN ('armed', 'cancelled', 'expired',", "IN ('claimed', 'cancelled', 'expired',"
    )
    op.execute(moves.replace("WHEN 'queued'", f"{CLAIMED}\n        WHEN 'queued'"))


def _check(states: str) -> None:
    name = op.f("outbox_state_check")
    op.drop_constraint(name, "outbox", type_="check", schema="mailwright")
    op.create_check_constraint(name, "outbox", f"state IN ({states})", schema="mailwright")


def _in_hand(where: str) -> None:
    _index("outbox_in_hand", ["mailbox_id"], where)


def _message_id(where: str | None) -> None:
    _index("outbox_message_id", ["mailbox_id", "message_id"], where)


def _index(name: str, columns: list[str], where: str | None) -> None:
    op.drop_index(name, table_name="outbox", schema="mailwright")
    op.create_index(
        name,
        "outbox",
        columns,
        unique=False,
        schema="mailwright",
        postgresql_where=None if where is None else sa.text(where),
    )
