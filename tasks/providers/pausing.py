"""Pausing a provider: receiving, sending or both rest until a time, or until somebody resumes it.

    in use ──pause──> paused ──resume, or its time──> in use, its mailboxes spread over a minute

A second pause takes the place of the first. What is on the wire is finished; mail stays in its queue.
"""

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import now as database_now

from config.errors import Conflict, UserError
from schema.tables.access import Operation
from schema.tables.providers import Paused, Provider
from tasks.access import Actor, audit, quoted, require
from tasks.events import NewEvent, record
from tasks.providers import engine

LONGEST_REASON = 500
"""Characters."""


def pause(
    actor: Actor,
    session: Session,
    name: str,
    *,
    what: Paused = Paused.BOTH,
    until: datetime | None = None,
    reason: str | None = None,
) -> Provider:
    """Let ``what`` of a provider rest until a time (UTC where it names no zone), or until it is resumed.

    Raises `NotFound`, `UserError` for a time that is over or a reason that is too long.
    """
    require(session, actor, Operation.MANAGE_ADMINISTRATION, "pause a provider")
    if until is not None and until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    if until is not None and until <= datetime.now(UTC):
        raise UserError(f"the pause would be over already: {until:%Y-%m-%d %H:%M}. Give a later time.")
    if reason is not None and (len(reason) > LONGEST_REASON or "\0" in reason):
        raise UserError(f"a reason has at most {LONGEST_REASON} characters, none of them NUL.")
    row = engine.lock(session, name)
    changes = _set(session, row, what, until, reason)
    if changes:
        audit(session, actor, "provider.paused", "provider", row.uid, row.name, changes)
        facts = {
            "paused": what.value,
            "until": None if until is None else until.isoformat(),
            "reason": reason,
        }
        _tell(session, row, "paused", facts)
    return row


def resume(actor: Actor, session: Session, name: str) -> Provider:
    """End a pause. Raises `NotFound`, `Conflict` where there is none."""
    require(session, actor, Operation.MANAGE_ADMINISTRATION, "resume a provider")
    row = engine.lock(session, name)
    if row.paused is None:
        raise Conflict(f"provider {quoted(row.name)} is not paused.")
    changes = _set(session, row, None, None, None)
    audit(session, actor, "provider.resumed", "provider", row.uid, row.name, changes)
    _tell(session, row, "resumed", {})
    return row


def resume_due(session: Session) -> int:
    """End the pauses whose time has come, for housekeeping. Returns how many."""
    due = session.scalars(
        select(Provider)
        .where(Provider.paused_until <= database_now())
        .order_by(Provider.id)
        .with_for_update(skip_locked=True, key_share=True)
    ).all()
    for row in due:
        _set(session, row, None, None, None)
        _tell(session, row, "resumed", {})
    return len(due)


def _set(
    session: Session, row: Provider, what: Paused | None, until: datetime | None, reason: str | None
) -> dict[str, tuple[str | None, str | None]]:
    """Write it, with the lanes of the provider's mailboxes; returns what changed, as the trail has it."""
    before = (row.paused, row.paused_until, row.paused_reason)
    row.paused, row.paused_until, row.paused_reason = what, until, reason
    after = (row.paused, row.paused_until, row.paused_reason)
    if before == after:
        return {}
    row.updated_at = session.scalar(select(database_now()))
    if before[0] != after[0]:
        engine.refresh_lanes(session, row)
    names = ("paused", "until", "reason")
    told = [
        [value.isoformat() if isinstance(value, datetime) else value for value in side]
        for side in (before, after)
    ]
    return {name: (old, new) for name, old, new in zip(names, *told, strict=True) if old != new}


def _tell(session: Session, row: Provider, action: str, facts: dict[str, str | None]) -> None:
    data = {"name": row.name, "action": action, "changed": ["paused"]} | facts
    record(session, [NewEvent("provider.changed", None, str(row.uid), data)])
