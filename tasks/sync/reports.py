"""Delivery reports and complaints, stored with the message that brought them.

Who sent what they are about settles them: reads the rows whose ``settled_at`` is NULL, and sets it.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Final

from psycopg.types.json import Jsonb
from sqlalchemy.orm import Session

from schema.database import put
from tasks.wire.mime import Report

COLUMNS: Final = {
    "message_id": "int8",
    "mailbox_id": "int8",
    "kind": "text",
    "envelope_id": "text",
    "original_message_id": "text",
    "attempt": "text",
    "recipients": "jsonb",
}


def put_reports(session: Session, mailbox_id: int, found: Iterable[tuple[int, Report | None]]) -> None:
    """Add the reports of new messages, given by id, to the transaction that stores these."""
    put(
        session,
        "reports",
        COLUMNS,
        [
            (
                message_id,
                mailbox_id,
                report.kind,
                report.envelope_id,
                report.message_id,
                report.attempt,
                Jsonb([asdict(recipient) for recipient in report.recipients]),
            )
            for message_id, report in found
            if report is not None
        ],
    )
