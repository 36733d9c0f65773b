"""Delivery reports and complaints, stored with the message that brought them.

Who sent what they are about settles them: reads the rows whose ``settled_at`` is NULL, and sets it.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict

from sqlalchemy.orm import Session

from schema.database import raw
from tasks.wire.mime import Report


def copy(session: Session, mailbox_id: int, found: Iterable[tuple[int, Report | None]]) -> None:
    """Add the reports of new messages, given by id, to the transaction that stores these."""
    rows = [(message_id, report) for message_id, report in found if report is not None]
    if not rows:
        return
    with (
        raw(session).cursor() as cursor,
        cursor.copy(
            "COPY mailwright.reports (message_id, mailbox_id, kind, envelope_id, original_message_id, "
            "attempt, recipients) FROM STDIN"
        ) as copying,
    ):
        for message_id, report in rows:
            copying.write_row(
                (
                    message_id,
                    mailbox_id,
                    report.kind,
                    report.envelope_id,
                    report.message_id,
                    report.attempt,
                    json.dumps([asdict(recipient) for recipient in report.recipients]),
                )
            )
