"""Reading the event log."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from tasks.access import Actor, Operation, require
from tasks.events import queries


def events_after(
    session: Session,
    actor: Actor,
    position: int,
    *,
    mailbox_id: int | None = None,
    types: Sequence[str] | None = None,
    limit: int = 500,
) -> Sequence[Row[Any]]:
    """Events behind ``position``, oldest first, at most ``limit``."""
    require(session, actor, Operation.VIEW_OPERATIONS, "read the events")
    return page(session, position, mailbox_id=mailbox_id, types=types, limit=limit)


def page(
    session: Session,
    position: int,
    *,
    mailbox_id: int | None = None,
    types: Sequence[str] | None = None,
    limit: int = 500,
) -> Sequence[Row[Any]]:
    """The same for the relay, which acts as the system."""
    return session.execute(
        queries.AFTER,
        {
            "after": position,
            "mailbox_id": mailbox_id,
            "types": list(types) if types else None,
            "limit": limit,
        },
    ).all()
