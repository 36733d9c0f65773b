"""Which thread a message belongs to: by the Message-IDs it names, else by its base subject.

Every Message-ID a message has or refers to belongs to one thread (JWZ's rule without the tree), so a
reply that arrives before its original, as newest-first history does, still meets it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from schema.database import Question

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


def questions(mailbox_id: int, messages: Sequence[Threadable]) -> list[Question]:
    """What `thread` needs to know of what is stored: the known names, then the recent subjects."""
    names = list({name for message in messages for name in message.names})
    subjects = list({message.subject for message in messages if message.reply and message.subject})
    return [
        (KNOWN_REFERENCES, {"mailbox_id": mailbox_id, "message_ids": names}),
        (BY_SUBJECT, {"mailbox_id": mailbox_id, "subjects": subjects}),
    ]


def merge(session: Session, mailbox_id: int, merged: Mapping[int, int]) -> None:
    """Make one of threads that a message joined."""
    for into in set(merged.values()):
        threads = [old for old, new in merged.items() if new == into]
        for statement in (MERGE_MESSAGES, MERGE_REFERENCES):
            session.execute(statement, {"mailbox_id": mailbox_id, "into": into, "threads": threads})
