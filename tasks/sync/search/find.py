"""Finding messages by their words."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from config.errors import UserError
from schema.tables.access import Operation
from tasks import access, mailboxes
from tasks.access import Actor
from tasks.sync.commands import overlay
from tasks.sync.search.words import MAX_SOUGHT, condition

FIND = text("""
    -- Newest first; index: message_search_words.
    WITH found AS (
        SELECT m.id, m.uid, m.mailbox_id, m.subject, m.addresses, m.internal_at, m.size, m.thread_id, m.state
        FROM mailwright.message_search AS s JOIN mailwright.messages AS m ON m.id = s.message_id
        WHERE s.words @@ cast(:query AS tsquery)
          AND (cast(:mailbox_ids AS bigint[]) IS NULL OR s.mailbox_id = ANY(:mailbox_ids))
          AND (cast(:since AS timestamptz) IS NULL OR s.at >= :since)
          AND (cast(:before AS timestamptz) IS NULL OR s.at < :before)
          AND m.state <> 'deleted'
          AND (cast(:folder AS text) IS NULL OR EXISTS (
              SELECT FROM mailwright.places AS p
              JOIN mailwright.folder_epochs AS e ON e.id = p.epoch_id AND e.state = 'current'
              JOIN mailwright.folders AS f ON f.id = e.folder_id
              WHERE p.message_id = m.id AND f.name = :folder
          ))
        ORDER BY s.at DESC NULLS LAST, s.message_id DESC LIMIT :limit
    )
    SELECT found.id, found.uid, b.address AS mailbox, found.subject, found.internal_at, found.size,
           found.addresses -> 'from' -> 0 ->> 'address' AS sender, found.thread_id, found.state,
           p.folders, p.flags, p.flags_as_of
    FROM found JOIN mailwright.mailboxes AS b ON b.id = found.mailbox_id
    LEFT JOIN LATERAL (
        SELECT array_agg(DISTINCT f.name) AS folders, min(e.flags_checked_at) AS flags_as_of,
               max(array_to_string(pl.flags, ' ')) AS flags
        FROM mailwright.places AS pl
        JOIN mailwright.folder_epochs AS e ON e.id = pl.epoch_id AND e.state = 'current'
        JOIN mailwright.folders AS f ON f.id = e.folder_id
        WHERE pl.message_id = found.id
    ) AS p ON true
    ORDER BY found.internal_at DESC NULLS LAST, found.id DESC
""")

OWN = text("SELECT id FROM mailwright.mailboxes WHERE owner_id = :owner_id")  # index: mailboxes_owner_id_idx

AS_QUERY = text("SELECT cast(to_tsquery('simple', :query) AS text)")


@dataclass(frozen=True, slots=True)
class Sought:
    """What is looked for. ``words`` anywhere in the message; ``since`` and ``before`` are moments of
    arrival; ``folder`` is a name as people see it."""

    words: str = ""
    sender: str | None = None
    recipient: str | None = None
    subject: str | None = None
    since: datetime | None = None
    before: datetime | None = None
    folder: str | None = None


def search_messages(
    session: Session, actor: Actor, sought: Sought, *, address: str | None = None, limit: int = 50
) -> Sequence[Any]:
    """The newest messages that match, of one mailbox or of all that ``actor`` may read.

    Raises `UserError` where nothing is sought, `NotFound`, `PermissionDenied`.
    """
    query = _query(sought)
    mailbox_ids = _mailboxes(session, actor, address)
    parsed = session.execute(AS_QUERY, {"query": query}).scalar_one()
    if not parsed:
        raise UserError(_NO_WORDS)
    if mailbox_ids is not None:
        parsed = f"({' | '.join(_lexeme(id) for id in mailbox_ids)}) & ({parsed})"
    asked = {
        "query": parsed,
        "mailbox_ids": mailbox_ids,
        "since": sought.since,
        "before": sought.before,
        "folder": sought.folder,
        "limit": limit,
    }
    rows = [dict(row._mapping) for row in session.execute(FIND, asked)]
    return [SimpleNamespace(**row) for row in overlay.overlaid_rows(session, rows)]


_NO_WORDS = "say what to look for: at least one word with a letter or a digit in it."


def _query(sought: Sought) -> str:
    parts = (
        (sought.words, ""),
        (sought.subject, "A"),
        (sought.sender, "B"),
        (sought.recipient, "C"),
    )
    try:
        found = [condition(words, weight) for words, weight in parts if words]
    except ValueError:
        raise UserError(f"that is too much to look for at once: at most {MAX_SOUGHT} words.") from None
    if not found or None in found:
        raise UserError(_NO_WORDS)
    return " & ".join(f"({one})" for one in found)


def _mailboxes(session: Session, actor: Actor, address: str | None) -> list[int] | None:
    """Where to look; None for everywhere."""
    if address is not None:
        mailbox = mailboxes.get(session, address)
        mailboxes.require_read(session, actor, mailbox)
        return [mailbox.id]
    if access.allowed(session, actor, Operation.READ_MESSAGES):
        return None
    own = list(session.execute(OWN, {"owner_id": access.user_id(session, actor)}).scalars())
    if not own:
        access.require(session, actor, Operation.READ_MESSAGES, "search messages")
    return own


def _lexeme(mailbox_id: int) -> str:
    return f"'@{mailbox_id}'"
