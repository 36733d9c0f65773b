"""Writing an event in the transaction of its fact."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from schema.database import raw

RECORD: Final = "INSERT INTO mailwright.events_pending (type, mailbox_id, subject, data, correlation)"
"""The head of an INSERT … SELECT, for statements that write a fact and its event in one go."""


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
    if not events:
        return
    with (
        raw(session).cursor() as cursor,
        cursor.copy(
            "COPY mailwright.events_pending (type, mailbox_id, subject, data, correlation) FROM STDIN"
        ) as copy,
    ):
        for event in events:
            copy.write_row(
                (event.type, event.mailbox_id, event.subject, json.dumps(event.data), event.correlation)
            )
