"""Removing a mailbox: what it does is drained, what it had is erased, in bounded batches.

    any state ──remove──> removing ──leases end──> erased in batches ──last batch──> gone, mailbox.removed

It can be broken off anywhere and begun again. The audit trail stays; events stay as lines of the
log (readers count on their positions), but without what they said.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row
from sqlalchemy.sql.elements import TextClause

from schema.tables.access import Operation
from schema.tables.mailboxes import Mailbox, MailboxState
from tasks import access
from tasks.access import Actor
from tasks.events import NewEvent, record
from tasks.mailboxes import lookup, queries, store
from tasks.mailboxes.lanes import refresh_lanes
from tasks.runtime import Runtime

BATCH: Final = 500
"""Rows of one kind that one transaction erases; each message takes its bytes and places along."""
_LOOK_EVERY: Final = 0.1


@dataclass(frozen=True, slots=True)
class Erased:
    """What went with a mailbox: counts of rows."""

    address: str
    messages: int
    outbound: int
    cancelled: int


Heard = Callable[[str, int], None]
"""Told of each batch: what, how many."""


def unheard(_what: str, _count: int) -> None:
    """Tell nobody."""


def remove(actor: Actor, runtime: Runtime, address: str, heard: Heard = unheard) -> Erased:
    """Drain and erase a mailbox and all it had; a removal that was broken off is continued.

    What a worker has on the wire may finish until its lease ends, at most three lease times from
    now; a worker that comes later finds its fencing token outdated. Raises `NotFound`, `PermissionDenied`.
    """
    with runtime.db.begin() as session:
        access.require(session, actor, Operation.MANAGE_MAILBOXES, f"remove the mailbox {address}")
        mailbox = lookup.get(session, address)
        session.refresh(mailbox, with_for_update=True)
        if mailbox.state != MailboxState.REMOVING:
            store.audit(session, actor, "mailbox.removing", mailbox, {"state": (mailbox.state, "removing")})
            mailbox.state, mailbox.state_reason = MailboxState.REMOVING, None
            refresh_lanes(session, mailbox.id)
    _drain(runtime, mailbox.id)
    return _erase(actor, runtime, mailbox, heard)


def continue_removals(actor: Actor, runtime: Runtime, limit: int = 1) -> int:
    """Finish up to ``limit`` removals that were broken off and whose workers are gone, for
    housekeeping. It waits for nobody: a lane that is switched off is not claimed again. Returns how many."""
    with runtime.db.begin() as session:
        access.require(session, actor, Operation.MANAGE_MAILBOXES, "finish removals")
        found = session.execute(queries.REMOVALS, {"limit": limit}).scalars().all()
        left = [session.get_one(Mailbox, mailbox_id) for mailbox_id in found]
    for mailbox in left:
        _drain(runtime, mailbox.id)
        _erase(actor, runtime, mailbox, unheard)
    return len(left)


def _drain(runtime: Runtime, mailbox_id: int) -> None:
    deadline = time.monotonic() + 3 * runtime.settings.lease_seconds
    while True:
        with runtime.db.begin() as session:
            held = session.execute(queries.HELD, {"mailbox_id": mailbox_id}).scalar_one()
            if not held or time.monotonic() >= deadline:
                for statement in queries.TAKE_LEASES:
                    session.execute(statement, {"mailbox_id": mailbox_id})
                return
        time.sleep(_LOOK_EVERY)


def _erase(actor: Actor, runtime: Runtime, mailbox: Mailbox, heard: Heard) -> Erased:
    outbound = cancelled = 0
    while True:
        with runtime.db.begin() as session:
            rows = session.execute(queries.ERASE_OUTBOX, {"mailbox_id": mailbox.id, "batch": BATCH}).all()
            record(session, [_ended(mailbox, row) for row in rows if row.fate])
        outbound += len(rows)
        cancelled += sum(row.fate == "cancelled" for row in rows)
        if not rows:
            break
        heard("outgoing messages", len(rows))
    messages = _batches(runtime, queries.ERASE_MESSAGES, mailbox.id, "messages", heard)
    _batches(runtime, queries.ERASE_PLACES, mailbox.id, "places", heard)
    for what, statement in queries.ERASE_SMALL.items():
        _batches(runtime, statement, mailbox.id, what, heard)
    _redact(runtime, mailbox.id, heard)
    with runtime.db.begin() as session:
        gone = session.execute(queries.ERASE_MAILBOX, {"mailbox_id": mailbox.id}).first()
        if gone is not None:
            store.audit(session, actor, "mailbox.removed", mailbox, {})
            facts = {"mailbox": str(mailbox.uid), "address": mailbox.address}
            record(session, [NewEvent("mailbox.removed", mailbox.id, str(mailbox.uid), facts)])
    return Erased(mailbox.address, messages, outbound, cancelled)


def _batches(runtime: Runtime, statement: TextClause, mailbox_id: int, what: str, heard: Heard) -> int:
    total = 0
    while True:
        with runtime.db.begin() as session:
            rows = session.execute(statement, {"mailbox_id": mailbox_id, "batch": BATCH}).all()
        if not rows:
            return total
        total += len(rows)
        heard(what, len(rows))


def _redact(runtime: Runtime, mailbox_id: int, heard: Heard) -> None:
    _batches(runtime, queries.REDACT_PENDING, mailbox_id, "events", heard)
    after = 0
    while True:
        with runtime.db.begin() as session:
            rows = session.execute(
                queries.REDACT_EVENTS, {"mailbox_id": mailbox_id, "batch": BATCH, "after": after}
            ).all()
        if not rows:
            return
        after = max(row.position for row in rows)
        heard("events", len(rows))


def _ended(mailbox: Mailbox, row: Row[Any]) -> NewEvent:
    """What becomes of a message that was not over."""
    facts = {"mailbox": str(mailbox.uid), "message": str(row.uid), "reason": "the mailbox was removed"}
    if row.fate == "uncertain":
        facts |= {"attempt": str(row.attempt), "reason": "the mailbox was removed while the message was sent"}
    return NewEvent(f"outbound.{row.fate}", mailbox.id, str(row.uid), facts, str(row.uid))
