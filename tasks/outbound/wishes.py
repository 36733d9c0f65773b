"""What people wish for a message in the queue: to see it go, wait, or not go at all. Rights are met here.

What is in a worker's hand is left to it; a wish to cancel is noted and met when it comes back.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from config.errors import Conflict, NotFound, UserError
from schema.tables.access import Operation
from schema.tables.mailboxes import Mailbox
from schema.tables.outbound import State
from tasks import access, mailboxes
from tasks.access import Actor
from tasks.events import NewEvent, record
from tasks.outbound.states import AT_REST, FINAL, WAITING, move
from tasks.outbound.values import LIFETIME

_ONE = text("""
    SELECT o.*, m.address, m.uid AS mailbox_uid, l.last_error AS lane_error, l.enabled AS lane_enabled,
           o.expires_at <= now() AS past
    FROM mailwright.outbox AS o
    JOIN mailwright.mailboxes AS m ON m.id = o.mailbox_id
    LEFT JOIN mailwright.outbox_lanes AS l ON l.mailbox_id = o.mailbox_id
    WHERE o.uid = :uid
""")


def cancel(actor: Actor, session: Session, uid: UUID) -> State:
    """Stop a message. One that is in hand now is cancelled if it comes back from there: the answer
    is then its present state. Raises `Conflict` where it is over already."""
    row = found(actor, session, uid)
    current = State(row.state)
    if current is State.CANCELLED:
        return current
    if current in FINAL or current is State.UNCERTAIN:
        raise Conflict(f"the message is {current} already; it cannot be cancelled.")
    if current not in AT_REST:
        session.execute(
            text("UPDATE mailwright.outbox SET cancel_asked = true WHERE id = :id"), {"id": row.id}
        )
        return current
    session.execute(
        text("UPDATE mailwright.outbox SET state = :state, ended_at = now() WHERE id = :id"),
        {"id": row.id, "state": move(current, State.CANCELLED)},
    )
    tell(session, row, "outbound.cancelled", {"by": actor.name})
    return State.CANCELLED


def hold(actor: Actor, session: Session, uid: UUID, reason: str = "") -> None:
    """Keep a message back until it is released. Raises `Conflict` where it does not wait."""
    row = found(actor, session, uid)
    current = State(row.state)
    if current not in WAITING:
        raise Conflict(_not_waiting(current, "held"))
    session.execute(
        text("UPDATE mailwright.outbox SET state = :state, held_for = :why WHERE id = :id"),
        {"id": row.id, "state": move(current, State.HELD), "why": f"{actor.name}: {reason}".rstrip(": ")},
    )
    tell(session, row, "outbound.held", {"by": actor.name, "reason": reason or None})


def release(actor: Actor, session: Session, uid: UUID) -> None:
    """Let a held message go, when its time has come. Raises `Conflict` where it is not held."""
    row = found(actor, session, uid)
    current = State(row.state)
    if current is not State.HELD:
        raise Conflict(f"the message is not held: it is {current}.")
    session.execute(
        text("UPDATE mailwright.outbox SET state = :state, held_for = NULL WHERE id = :id"),
        {"id": row.id, "state": move(current, State.QUEUED)},
    )
    tell(session, row, "outbound.released", {"by": actor.name, "due_at": row.due_at.isoformat()})


def bump(actor: Actor, session: Session, uid: UUID, priority: int) -> None:
    """Let a message go before, or after, others of its mailbox. Raises `Conflict` where it does not wait."""
    row = found(actor, session, uid)
    if State(row.state) not in AT_REST:
        raise Conflict(_not_waiting(State(row.state), "moved"))
    if not -100 <= priority <= 100:
        raise UserError("priority is a whole number from -100 to 100.")
    session.execute(
        text("UPDATE mailwright.outbox SET priority = :priority WHERE id = :id"),
        {"id": row.id, "priority": priority},
    )
    tell(session, row, "outbound.rescheduled", _when(actor, priority, row.due_at, row.expires_at))


def reschedule(actor: Actor, session: Session, uid: UUID, not_before: datetime) -> None:
    """Let a message go at another time, a deferred one too. Raises `Conflict` where it does not wait, or
    would have expired by then."""
    row = found(actor, session, uid)
    if State(row.state) not in AT_REST:
        raise Conflict(_not_waiting(State(row.state), "rescheduled"))
    if not_before >= row.expires_at:
        raise Conflict(
            f"the message expires at {row.expires_at:%Y-%m-%d %H:%M} UTC, before that. "
            f"Let it live longer: mailwright outbox expire {uid} --at TIME"
        )
    session.execute(
        text("UPDATE mailwright.outbox SET due_at = :at WHERE id = :id"), {"id": row.id, "at": not_before}
    )
    tell(session, row, "outbound.rescheduled", _when(actor, row.priority, not_before, row.expires_at))


def expire(actor: Actor, session: Session, uid: UUID, at: datetime | None = None) -> State:
    """Give a message up at a time, by default now; returns its state. Raises `Conflict` where it does not
    wait."""
    row = found(actor, session, uid)
    current = State(row.state)
    if current not in AT_REST:
        raise Conflict(_not_waiting(current, "expired"))
    ends: datetime = session.execute(text("SELECT coalesce(:at, now())"), {"at": at}).scalar_one()
    given = {"id": row.id, "at": ends}
    if session.execute(text("SELECT :at > now()"), {"at": ends}).scalar_one():
        session.execute(text("UPDATE mailwright.outbox SET expires_at = :at WHERE id = :id"), given)
        tell(session, row, "outbound.rescheduled", _when(actor, row.priority, row.due_at, ends))
        return current
    session.execute(
        text("""UPDATE mailwright.outbox SET state = :state, expires_at = :at, ended_at = now(),
                error_code = 'expired', held_for = NULL WHERE id = :id"""),
        {**given, "state": move(current, State.EXPIRED)},
    )
    tell(session, row, "outbound.expired", {"code": "expired", "reason": f"given up by {actor.name}"})
    return State.EXPIRED


def _when(actor: Actor, priority: int, due_at: datetime, expires_at: datetime) -> dict[str, Any]:
    return {
        "by": actor.name,
        "priority": priority,
        "due_at": due_at.isoformat(),
        "expires_at": expires_at.isoformat(),
    }


def _not_waiting(current: State, wish: str) -> str:
    if current is State.ARMED:
        return f"a worker has the message in hand just now, so it cannot be {wish}. Look again in a moment."
    return f"the message does not wait: it is {current}. It cannot be {wish}."


def retry(actor: Actor, session: Session, uid: UUID, *, may_duplicate: bool = False) -> None:
    """Send a message again to those who did not get it, now.

    An uncertain one may have arrived, so that wants ``may_duplicate``. Raises `Conflict` where there is
    nothing to send again.
    """
    row = found(actor, session, uid)
    current = State(row.state)
    if current is State.UNCERTAIN and not may_duplicate:
        raise Conflict(
            "nobody knows whether this message arrived. If you find out: mailwright outbox settle ID "
            "sent|failed|resend; to send it again all the same: --may-duplicate"
        )
    if current in (State.SENT, State.ARMED):
        raise Conflict(f"the message is {current}; there is nothing to send again.")
    if row.request is not None and current is State.FAILED:
        raise Conflict(f"the message itself is at fault ({row.error_code}). Send it anew, mended.")
    if current is not State.QUEUED:
        move(current, State.QUEUED)
    session.execute(
        text("""
            UPDATE mailwright.outbox
            SET state = 'queued', due_at = now(), cancel_asked = false, ended_at = NULL, error_code = NULL,
                held_for = NULL,
                expires_at = CASE WHEN expires_at <= now() THEN now() + :lifetime ELSE expires_at END
            WHERE id = :id
        """),
        {"id": row.id, "lifetime": LIFETIME},
    )
    session.execute(
        text("""
            UPDATE mailwright.outbox_recipients SET state = 'pending'
            WHERE outbound_id = :id AND state IN ('deferred', 'failed', 'uncertain')
        """),
        {"id": row.id},
    )
    tell(session, row, "outbound.queued", {"retried_by": actor.name, "was": current.value})


def found(actor: Actor, session: Session, uid: UUID, *, viewing: bool = False) -> Row[Any]:
    """A message, locked unless it is only looked at. Raises `NotFound`, `PermissionDenied`."""
    row = session.execute(
        text(f"{_ONE.text} {'' if viewing else 'FOR UPDATE OF o'}"), {"uid": uid}
    ).one_or_none()
    if row is None:
        raise NotFound(f"there is no message {uid} in the outbox. See `mailwright outbox list`.")
    if not (viewing and access.allowed(session, actor, Operation.VIEW_OPERATIONS)):
        mailboxes.require_send(session, actor, session.get_one(Mailbox, row.mailbox_id))
    return row


def tell(session: Session, row: Row[Any], kind: str, data: dict[str, Any]) -> None:
    """Record an event about a message."""
    facts = {"mailbox": str(row.mailbox_uid), "message": str(row.uid), **data}
    record(session, [NewEvent(kind, row.mailbox_id, str(row.uid), facts, str(row.uid))])
