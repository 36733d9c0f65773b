"""How commands end, wait or are told of: one place for each change of their state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from schema.tables.sync import CommandState
from tasks.events import NewEvent, record
from tasks.sync.commands import queries

if TYPE_CHECKING:
    from tasks.sync.commands.values import Change
    from tasks.sync.work import Work

TRIES = 8


def count_tries(session: Session, ids: Sequence[int]) -> None:
    """Committed before anything is asked of the server."""
    session.execute(queries.COUNT_TRIES, {"ids": list(ids)})


def end(session: Session, ids: Sequence[int], state: CommandState, reason: str | None = None) -> bool:
    """Done, or void: there was nothing to change. ``reason`` says why, or what is left over. Returns
    whether any had not ended before."""
    if not ids:
        return False
    ended = session.execute(queries.END, {"ids": list(ids), "state": state.value, "error": reason})
    return ended.first() is not None


def told(session: Session, ids: Sequence[int], note: str | None = None) -> None:
    """The server said OK; the sync is to find what came of it."""
    if ids:
        session.execute(queries.TOLD, {"ids": list(ids), "error": note})


def untried(session: Session, changes: Sequence[Change], reason: str | None = None, pause: float = 0) -> None:
    """Nothing was asked of the server; due again in ``pause`` seconds."""
    if changes:
        session.execute(
            queries.UNTRIED,
            {
                "ids": [change.id for change in changes],
                "sent": [change.sent for change in changes],
                "error": reason,
                "pause": pause,
            },
        )


def defer(session: Session, work: Work, changes: Sequence[Change], reason: str, *, refused: bool) -> None:
    """Try again later, or give up. ``refused``: of this try nothing was done."""
    again = [change.id for change in changes if change.tries + 1 < TRIES]
    for change in changes:
        if change.tries + 1 >= TRIES:
            fail(session, work, change, f"given up after {change.tries + 1} tries: {reason}")
    if again:
        undone = [change.id for change in changes if refused and not change.sent]
        session.execute(queries.DEFER, {"ids": again, "error": reason[:500], "undone": undone})


def broken_off(
    session: Session, work: Work, begun: Sequence[Change], rest: Sequence[Change], error: str
) -> None:
    """The session died: what was ``begun`` may be done, the ``rest`` was not asked for."""
    defer(session, work, begun, error, refused=False)
    untried(session, rest)


def fail(session: Session, work: Work, change: Change, reason: str) -> None:
    """End a command that cannot be carried out, with its event."""
    if not end(session, [change.id], CommandState.FAILED, reason[:500]):
        return
    data = {
        "mailbox": str(work.route.uid),
        "command": str(change.uid),
        "kind": change.kind.value,
        "message": str(change.message_uid),
        "reason": reason[:500],
    }
    record(session, [NewEvent("command.failed", work.route.mailbox_id, str(change.uid), data)])
