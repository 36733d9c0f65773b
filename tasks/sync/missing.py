"""Messages whose last place vanished: deleted once every followed folder was looked at and had none."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from tasks.events import NewEvent, record
from tasks.sync import search
from tasks.sync.commands import origins

DELETE_MISSING = text("""
    -- Messages missing since before a pass over all followed folders began; index: messages_missing.
    UPDATE mailwright.messages SET state = 'deleted', body_text = NULL, body_html = NULL
    WHERE mailbox_id = :mailbox_id AND state = 'missing' AND missing_since < :pass_began
    RETURNING id, uid, message_id, subject
""")

ANY_MISSING = text("""
    -- Index: messages_missing.
    SELECT EXISTS (
        SELECT 1 FROM mailwright.messages
        WHERE mailbox_id = :mailbox_id AND state = 'missing' AND missing_since < :pass_began
    )
""")

DROP_RAW = text("DELETE FROM mailwright.raw_messages WHERE message_id = ANY(:ids)")


def any_missing(session: Session, mailbox_id: int, pass_began: datetime) -> bool:
    """Whether a message is missing since before a pass began."""
    return bool(
        session.execute(ANY_MISSING, {"mailbox_id": mailbox_id, "pass_began": pass_began}).scalar_one()
    )


def delete_missing(session: Session, mailbox_id: int, mailbox_uid: UUID, pass_began: datetime) -> int:
    """Settle what was missing when a complete pass began. Returns how many are deleted now."""
    rows = session.execute(DELETE_MISSING, {"mailbox_id": mailbox_id, "pass_began": pass_began}).all()
    caused = origins.of_leaving(session, [row.id for row in rows])
    if rows:
        origins.seen(session, list(caused), origins.LEAVING)
        session.execute(DROP_RAW, {"ids": [row.id for row in rows]})
        search.forget(session, [row.id for row in rows])
    record(
        session,
        [
            NewEvent(
                "message.deleted",
                mailbox_id,
                str(row.uid),
                {
                    "mailbox": str(mailbox_uid),
                    "message_id": row.message_id,
                    "subject": row.subject,
                    "origin": caused[row.id],
                },
            )
            for row in rows
        ],
    )
    return len(rows)
