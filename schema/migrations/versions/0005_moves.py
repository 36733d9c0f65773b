"""Held mail and bounced recipients; the database refuses moves that the state machine does not show."""

import sqlalchemy as sa
from alembic import op

from schema.functions import source

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATES = "'queued', 'claimed', 'armed', 'deferred', 'sent', 'failed', 'uncertain', 'cancelled', 'expired'"
RECIPIENT_STATES = "'pending', 'sent', 'deferred', 'failed', 'uncertain'"


def upgrade() -> None:
    _check("outbox", STATES.replace("'sent'", "'held', 'sent'"))
    _check("outbox_recipients", f"{RECIPIENT_STATES}, 'bounced'")
    op.add_column("outbox", sa.Column("held_for", sa.Text(), nullable=True), schema="mailwright")
    op.execute(source("moves"))


def downgrade() -> None:
    op.execute("DROP TRIGGER outbox_recipients_moves ON mailwright.outbox_recipients")
    op.execute("DROP TRIGGER outbox_moves ON mailwright.outbox")
    op.execute("DROP FUNCTION mailwright.refuse_move()")
    op.drop_column("outbox", "held_for", schema="mailwright")
    op.execute("UPDATE mailwright.outbox SET state = 'queued' WHERE state = 'held'")
    op.execute("UPDATE mailwright.outbox_recipients SET state = 'failed' WHERE state = 'bounced'")
    _check("outbox_recipients", RECIPIENT_STATES)
    _check("outbox", STATES)


def _check(table: str, states: str) -> None:
    name = f"{table}_state_check"
    op.drop_constraint(op.f(name), table, type_="check", schema="mailwright")
    op.create_check_constraint(op.f(name), table, f"state IN ({states})", schema="mailwright")
