"""Indexing what was stored: claims from the backlog, words into ``message_search``."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from schema.database import tell
from tasks.runtime import Runtime
from tasks.sync.search.words import index_words
from tasks.wire.mime import html_text

MOST_BYTES: Final = 256 * 1024
"""Bytes of a message's words that are indexed: subject, people, names of attachments, then its text. With
these a ``tsvector`` stays below the 1 MiB that Postgres allows."""
SLICE_SECONDS: Final = 5.0
"""How long one task indexes before it gives the slot back."""

NOTE = text("""
    -- One row for each 50 messages, so that a claim, and what it reads, is bounded.
    INSERT INTO mailwright.search_backlog (mailbox_id, message_ids, due_at)
    SELECT :mailbox_id, array_agg(id), now() + make_interval(secs => :wait)
    FROM unnest(cast(:ids AS bigint[])) WITH ORDINALITY AS new (id, n) GROUP BY (n - 1) / 50
""")

CLAIM = text("""
    -- A claim is a delay: whoever dies of it leaves it due again, later each time, and holds nobody up.
    -- Index: search_backlog_due.
    UPDATE mailwright.search_backlog
    SET tries = tries + 1, due_at = now() + interval '1 minute' * 2 ^ least(tries, 10)
    WHERE id = (
        SELECT id FROM mailwright.search_backlog WHERE due_at <= now()
        ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING id, message_ids
""")

UNINDEXED = text("""
    -- Locked, so that what is deleted meanwhile is not indexed after; index: messages_pkey.
    SELECT m.id, m.mailbox_id, m.internal_at, m.subject, m.addresses, m.body_text,
           CASE WHEN coalesce(m.body_text, '') !~ '\\S' THEN m.body_html END AS body_html,
           ARRAY(
               SELECT a.name FROM mailwright.attachments AS a
               WHERE a.message_id = m.id AND a.name IS NOT NULL ORDER BY a.part
           ) AS names
    FROM mailwright.messages AS m
    WHERE m.id = ANY(:ids) AND m.state <> 'deleted' ORDER BY m.id FOR SHARE OF m
""")

ADD = text("""
    -- Weights: A subject, B sender, C recipients, D the rest. The last lexeme, which no word can be, names
    -- the mailbox: the index then meets only that mailbox's words, in a table of everybody's.
    INSERT INTO mailwright.message_search (message_id, mailbox_id, at, words)
    SELECT :id, :mailbox_id, :at,
           setweight(to_tsvector('simple', :subject), 'A') || setweight(to_tsvector('simple', :sender), 'B')
           || setweight(to_tsvector('simple', :recipients), 'C') || to_tsvector('simple', :rest)
           || array_to_tsvector(ARRAY['@' || cast(:mailbox_id AS text)])
    ON CONFLICT (message_id) DO NOTHING
""")

DONE = text("DELETE FROM mailwright.search_backlog WHERE id = :id")

FORGET = text("DELETE FROM mailwright.message_search WHERE message_id = ANY(:ids)")


def note(session: Session, mailbox_id: int, ids: Sequence[int], wait: float) -> None:
    """Have new messages indexed after ``wait`` seconds, in the transaction that stores them."""
    if ids:
        tell(session, NOTE, {"mailbox_id": mailbox_id, "ids": list(ids), "wait": wait})


def forget(session: Session, ids: Sequence[int]) -> None:
    """Find these messages no more, in the transaction that deletes them."""
    session.execute(FORGET, {"ids": list(ids)})


def index_due(runtime: Runtime) -> int:
    """Index what is due, for a few seconds. Returns how many messages were looked at; safe to run twice
    at once and to be killed anywhere. One indexed lookup where nothing is due."""
    deadline = time.monotonic() + SLICE_SECONDS
    looked_at = 0
    while time.monotonic() < deadline and not runtime.stopping.is_set():
        with runtime.db.begin() as session:
            claimed = session.execute(CLAIM).first()
        if claimed is None:
            break
        with runtime.db.begin() as session:
            rows = session.execute(UNINDEXED, {"ids": claimed.message_ids}).all()
            if rows:
                session.execute(ADD, [_entry(row) for row in rows])
            session.execute(DONE, {"id": claimed.id})
        looked_at += len(claimed.message_ids)
    return looked_at


def _entry(row: Any) -> dict[str, Any]:
    parts = {
        "subject": row.subject,
        "sender": _people(row.addresses, ("from", "sender", "reply_to")),
        "recipients": _people(row.addresses, ("to", "cc", "bcc")),
        "rest": "\n".join([*row.names, html_text(row.body_html) if row.body_html else row.body_text or ""]),
    }
    entry: dict[str, Any] = {"id": row.id, "mailbox_id": row.mailbox_id, "at": row.internal_at}
    left = MOST_BYTES
    for name, value in parts.items():
        entry[name] = index_words(value, left)
        left -= len(entry[name].encode())
    return entry


def _people(addresses: dict[str, list[dict[str, str]]], fields: Iterable[str]) -> str:
    people = [person for field in fields for person in addresses.get(field, ())]
    return "\n".join(f"{person['name']} {person['address']}" for person in people)
