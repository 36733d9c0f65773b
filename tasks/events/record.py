"""Writing an event in the transaction of its fact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg.types.json import Jsonb
from sqlalchemy.orm import Session

from schema.database import put

RECORD: Final = "INSERT INTO mailwright.events_pending (type, mailbox_id, subject, data, correlation)"
"""The head of an INSERT … SELECT, for statements that write a fact and its event in one go."""

_COLUMNS: Final = {
    "type": "text",
    "mailbox_id": "int8",
    "subject": "text",
    "data": "jsonb",
    "correlation": "text",
}


@dataclass(frozen=True, slots=True)
class NewEvent:
    """A fact about to be committed. ``type`` is a name of the event reference such as
    ``message.received``; ``subject`` the outward id of what it is about; ``data`` JSON."""

    type: str
    mailbox_id: int | None
    subject: str
    data: dict[str, Any]
    correlation: str | None = None


def record(session: Session, events: Sequence[NewEvent]) -> None:
    """Add events to the session's transaction, in order; they appear if and when it commits."""
    put(
        session,
        "events_pending",
        _COLUMNS,
        [
            (event.type, event.mailbox_id, event.subject, Jsonb(event.data), event.correlation)
            for event in events
        ],
    )
