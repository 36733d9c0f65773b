"""Reading what is stored: lists, one message, its raw bytes."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from config.errors import NotFound
from tasks import mailboxes
from tasks.access import Actor
from tasks.sync.commands import overlay
from tasks.sync.commands.queries import OF_MESSAGE
from tasks.wire.mime import clean_html

LIST = text("""
    -- Newest first; index: messages_newest.
    SELECT m.id, m.uid, m.subject, m.addresses -> 'from' -> 0 ->> 'address' AS sender, m.internal_at, m.size,
           m.thread_id, m.state, p.folders, p.flags, p.flags_as_of
    FROM mailwright.messages AS m
    LEFT JOIN LATERAL (
        SELECT array_agg(DISTINCT f.name) AS folders, min(e.flags_checked_at) AS flags_as_of,
               max(array_to_string(pl.flags, ' ')) AS flags
        FROM mailwright.places AS pl
        JOIN mailwright.folder_epochs AS e ON e.id = pl.epoch_id AND e.state = 'current'
        JOIN mailwright.folders AS f ON f.id = e.folder_id
        WHERE pl.message_id = m.id
    ) AS p ON true
    WHERE m.mailbox_id = :mailbox_id AND m.state <> 'deleted'
      AND (cast(:folder AS text) IS NULL OR :folder = ANY(p.folders) OR m.id IN (
          SELECT c.message_id FROM mailwright.commands AS c
          JOIN mailwright.folders AS t ON t.id = c.target_id
          WHERE c.mailbox_id = :mailbox_id AND c.state IN ('queued', 'told') AND t.name = :folder
      ))
    ORDER BY m.internal_at DESC NULLS LAST, m.id DESC LIMIT :limit
""")

ONE = text("""
    SELECT m.*, b.address AS mailbox FROM mailwright.messages AS m
    JOIN mailwright.mailboxes AS b ON b.id = m.mailbox_id WHERE m.uid = :uid
""")

PLACES = text("""
    SELECT f.name AS folder, p.imap_uid, p.flags, e.flags_checked_at, e.compared_at
    FROM mailwright.places AS p
    JOIN mailwright.folder_epochs AS e ON e.id = p.epoch_id AND e.state = 'current'
    JOIN mailwright.folders AS f ON f.id = e.folder_id
    WHERE p.message_id = :id ORDER BY f.name, p.imap_uid
""")

ATTACHMENTS = text("""
    SELECT part, name, content_type, size, encode(digest, 'hex') AS sha256, disposition
    FROM mailwright.attachments WHERE message_id = :id ORDER BY part
""")

REPORT = text("""
    SELECT kind, envelope_id, original_message_id, attempt, recipients, settled_at
    FROM mailwright.reports WHERE message_id = :id
""")

RAW = text("SELECT raw FROM mailwright.raw_messages WHERE message_id = :id")


def list_messages(
    session: Session, actor: Actor, address: str, *, folder: str | None = None, limit: int = 50
) -> Sequence[Any]:
    """A mailbox's newest messages."""
    mailbox = mailboxes.get(session, address)
    mailboxes.require_read(session, actor, mailbox)
    asked = {"mailbox_id": mailbox.id, "folder": folder, "limit": limit}
    rows = [dict(row._mapping) for row in session.execute(LIST, asked)]
    shown = overlay.overlaid_rows(session, rows)
    return [SimpleNamespace(**row) for row in shown if folder is None or folder in (row["folders"] or [])]


def show_message(session: Session, actor: Actor, uid: UUID) -> dict[str, Any]:
    """One message with its places and attachments; its HTML is cleaned, so it can be shown."""
    row = _one(session, actor, uid)
    return {
        "id": row.uid,
        "mailbox": row.mailbox,
        "state": row.state,
        "subject": row.subject,
        "addresses": row.addresses,
        "sent": row.sent_at,
        "received": row.internal_at,
        "message_id": row.message_id,
        "in_reply_to": row.in_reply_to,
        "thread": row.thread_id,
        "size": row.size,
        "sha256": bytes(row.digest).hex(),
        "auto_submitted": row.auto_submitted,
        "list_id": row.list_id,
        "defects": row.defects,
        "places": overlay.overlaid_places(
            session, row.id, [dict(place._mapping) for place in session.execute(PLACES, {"id": row.id})]
        ),
        "changes": [dict(change._mapping) for change in session.execute(OF_MESSAGE, {"message_id": row.id})],
        "attachments": [dict(part._mapping) for part in session.execute(ATTACHMENTS, {"id": row.id})],
        "report": _report(session, row.id),
        "text": row.body_text,
        "html": None if row.body_html is None else clean_html(row.body_html),
    }


def raw_message(session: Session, actor: Actor, uid: UUID) -> bytes:
    """The bytes as fetched. Raises `NotFound` where the mailbox keeps none."""
    row = _one(session, actor, uid)
    raw = session.execute(RAW, {"id": row.id}).scalar()
    if raw is None:
        raise NotFound(
            f"the raw bytes of message {uid} are not stored: it was deleted, or its mailbox keeps less than "
            "everything (`mailwright mailbox show`)."
        )
    return bytes(raw)


def _report(session: Session, message_id: int) -> dict[str, Any] | None:
    row = session.execute(REPORT, {"id": message_id}).first()
    return None if row is None else dict(row._mapping)


def _one(session: Session, actor: Actor, uid: UUID) -> Any:
    row = session.execute(ONE, {"uid": uid}).first()
    if row is None:
        raise NotFound(f"there is no message {uid}. See `mailwright message list ADDRESS`.")
    mailboxes.require_read(session, actor, mailboxes.get(session, row.mailbox))
    return row
