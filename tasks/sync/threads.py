"""Which thread a message belongs to: by the Message-IDs it names, else by its base subject.

Every Message-ID a message has or refers to belongs to one thread (JWZ's rule without the tree), so a
reply that arrives before its original, as newest-first history does, still meets it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from schema.database import raw, run

KNOWN_REFERENCES = text("""
    SELECT message_id, thread_id FROM mailwright.message_references
    WHERE mailbox_id = :mailbox_id AND message_id = ANY(:message_ids)
""")

BY_SUBJECT = text("""
    -- Threads of the last 30 days with these base subjects; index: messages_thread_subject.
    SELECT DISTINCT ON (thread_subject) thread_subject, thread_id FROM mailwright.messages
    WHERE mailbox_id = :mailbox_id AND thread_subject = ANY(:subjects)
      AND sent_at > now() - interval '30 days' AND thread_id IS NOT NULL
    ORDER BY thread_subject, sent_at DESC
""")

MERGE_MESSAGES = text("""
    UPDATE mailwright.messages SET thread_id = :into
    WHERE mailbox_id = :mailbox_id AND thread_id = ANY(:threads)
""")

MERGE_REFERENCES = text("""
    UPDATE mailwright.message_references SET thread_id = :into
    WHERE mailbox_id = :mailbox_id AND thread_id = ANY(:threads)
""")


@dataclass(frozen=True, slots=True)
class Threadable:
    """What of a message decides its thread. ``names``: its own Message-ID and all it refers to;
    ``reply``: the subject carried a reply prefix, so the subject may stand in for lost references."""

    names: tuple[str, ...]
    subject: str
    reply: bool


@dataclass(frozen=True, slots=True)
class Threading:
    """The outcome: a thread for each message, the names to remember, and threads found to be one."""

    threads: tuple[int, ...]
    remember: Mapping[str, int]
    merged: Mapping[int, int]


def thread(
    messages: Sequence[Threadable],
    known: Mapping[str, int],
    by_subject: Mapping[str, int],
    new_thread: Callable[[], int],
) -> Threading:
    """Decide threads for a batch. ``known`` maps Message-IDs to stored threads, ``by_subject`` base
    subjects to recent ones; two stored threads joined by one message become the older."""
    parent: dict[int, int] = {}

    def root(thread_id: int) -> int:
        while thread_id in parent:
            thread_id = parent[thread_id]
        return thread_id

    names = dict(known)
    chosen: list[int] = []
    subjects = dict(by_subject)
    for message in messages:
        found = sorted({root(names[name]) for name in message.names if name in names})
        if found:
            mine = found[0]
            for other in found[1:]:
                parent[other] = mine
        elif message.reply and len(message.names) <= 1 and message.subject in subjects:
            mine = root(subjects[message.subject])
        else:
            mine = new_thread()
        for name in message.names:
            names[name] = mine
        if message.subject:
            subjects.setdefault(message.subject, mine)
        chosen.append(mine)
    return Threading(
        threads=tuple(root(thread_id) for thread_id in chosen),
        remember={name: root(thread_id) for name, thread_id in names.items() if name not in known},
        merged={old: root(old) for old in parent},
    )


def assign_threads(
    session: Session, mailbox_id: int, messages: Sequence[Threadable], new_threads: Sequence[int]
) -> tuple[int, ...]:
    """Threads for a batch about to be stored, remembered in the same transaction. ``new_threads``: an id for
    each message, should it begin a thread."""
    if not messages:
        return ()
    names = list({name for message in messages for name in message.names})
    subjects = list({m.subject for m in messages if m.reply and m.subject})
    known = {
        row.message_id: row.thread_id
        for row in run(session, KNOWN_REFERENCES, {"mailbox_id": mailbox_id, "message_ids": names})
    }
    recent = (
        {
            row.thread_subject: row.thread_id
            for row in run(session, BY_SUBJECT, {"mailbox_id": mailbox_id, "subjects": subjects})
        }
        if subjects
        else {}
    )
    fresh = iter(new_threads)
    outcome = thread(messages, known, recent, lambda: next(fresh))
    for into in set(outcome.merged.values()):
        threads = [old for old, new in outcome.merged.items() if new == into]
        for statement in (MERGE_MESSAGES, MERGE_REFERENCES):
            session.execute(statement, {"mailbox_id": mailbox_id, "into": into, "threads": threads})
    if outcome.remember:
        with (
            raw(session).cursor() as cursor,
            cursor.copy(
                "COPY mailwright.message_references (mailbox_id, message_id, thread_id) FROM STDIN"
            ) as copy,
        ):
            for name, thread_id in outcome.remember.items():
                copy.write_row((mailbox_id, name, thread_id))
    return outcome.threads
