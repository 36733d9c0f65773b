"""Committing one batch of a folder: messages, places, raw bytes, threads, cursor and events together.

Conflicts are impossible, because the lease makes this the mailbox's only writer and
the plan fetches no UID that the cursor has.
"""

import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlalchemy.orm import Session

from schema.database import FEW, Row, put, raw, run_all, tell, together
from schema.ids import uuid7s
from schema.tables.mailboxes import Keep
from tasks import outbound
from tasks.events import NewEvent, record
from tasks.sync import reports, search
from tasks.sync.commands import origins, replies
from tasks.sync.commands.seeking import attempts_of
from tasks.sync.ranges import Ranges
from tasks.sync.threads import Threadable, merge, questions, thread
from tasks.wire.bulk import Bulk, Raw, windows
from tasks.wire.mime import Address, Mail

MESSAGE_COLUMNS: Final = {
    "id": "int8",
    "uid": "uuid",
    "mailbox_id": "int8",
    "digest": "bytea",
    "size": "int8",
    "internal_at": "timestamptz",
    "sent_at": "timestamptz",
    "message_id": "text",
    "in_reply_to": "text[]",
    "subject": "text",
    "addresses": "jsonb",
    "headers": "jsonb",
    "body_text": "text",
    "body_html": "text",
    "content_type": "text",
    "auto_submitted": "text",
    "list_id": "text",
    "thread_id": "int8",
    "thread_subject": "text",
    "defects": "text[]",
    "announced": "bool",
    "outbound_uid": "uuid",
    "email_id": "text",
}
RAW_COLUMNS: Final = {"message_id": "int8", "mailbox_id": "int8", "raw": "bytea"}
REFERENCE_COLUMNS: Final = {"mailbox_id": "int8", "message_id": "text", "thread_id": "int8"}
PLACE_COLUMNS: Final = {
    "epoch_id": "int8",
    "imap_uid": "int8",
    "mailbox_id": "int8",
    "message_id": "int8",
    "flags": "text[]",
    "modseq": "int8",
    "stub": "text",
}
ATTACHMENT_COLUMNS: Final = {
    "message_id": "int8",
    "part": "text",
    "mailbox_id": "int8",
    "name": "text",
    "content_type": "text",
    "size": "int8",
    "digest": "bytea",
    "content_id": "text",
    "disposition": "text",
}

COPY_RAW: Final = "COPY mailwright.raw_messages (message_id, mailbox_id, raw) FROM STDIN (FORMAT BINARY)"
# Binary COPY: signature, flags, length of no extension; a row, up to the bytes of its last value; the end.
COPY_BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_RAW_ROW: Final = struct.Struct("!hiqiqi")
COPY_END: Final = b"\xff\xff"

# Mail in these folders was not received: it was written or sent by the mailbox's owner.
OWN_MAIL = frozenset({"\\Sent", "\\Drafts"})

HISTORY_WAITS: Final = 60.0
"""Seconds before what is no news is indexed for search: the sync that brings it comes first."""

BY_DIGEST = text("""
    -- Messages that could be the ones just fetched; index: messages_digest.
    SELECT m.id, m.uid, m.digest, m.state,
           EXISTS (
               SELECT 1 FROM mailwright.places AS p WHERE p.message_id = m.id AND p.epoch_id = :epoch_id
           ) AS here,
           m.state = 'missing' AND m.missing_since = (
               SELECT e.created_at FROM mailwright.folder_epochs AS e WHERE e.id = :epoch_id
           ) AS renumbered,
           (
               SELECT p.flags FROM mailwright.places AS p
               JOIN mailwright.folder_epochs AS e ON e.id = p.epoch_id AND e.state = 'retired'
               WHERE p.message_id = m.id AND e.folder_id = :folder_id ORDER BY e.id DESC LIMIT 1
           ) AS flags
    FROM mailwright.messages AS m
    WHERE m.mailbox_id = :mailbox_id AND m.digest = ANY(:digests) AND m.state <> 'deleted'
    ORDER BY m.state = 'missing' DESC, m.id
""")

NEW_IDS = text("""
    -- For so many messages: each its id, and that of a thread, should it begin one.
    SELECT nextval('mailwright.messages_id_seq') AS message, nextval('mailwright.threads') AS thread
    FROM generate_series(1, :n)
""")

REVIVE = text("""
    UPDATE mailwright.messages SET state = 'present', missing_since = NULL WHERE id = ANY(:ids)
""")

PASS_OVER = text("""
    -- The cursor has these UIDs, and what failed before is forgiven.
    WITH forgiven AS (
        DELETE FROM mailwright.fetch_failures WHERE epoch_id = :epoch_id AND imap_uid = ANY(:uids)
    )
    UPDATE mailwright.folder_epochs SET uids = uids + cast(:passed AS int8multirange) WHERE id = :epoch_id
""")

SENT_BY_US = text("""
    SELECT uid, message_id FROM mailwright.outbox
    WHERE mailbox_id = :mailbox_id AND message_id = ANY(:message_ids)
""")


@dataclass(frozen=True, slots=True)
class FolderContext:
    """The folder epoch that a batch belongs to. UIDs from ``history_below`` on, and messages from
    ``notify_from`` on, are announced, if that day has come (``announcing``)."""

    mailbox_id: int
    mailbox_uid: UUID
    folder_id: int
    folder_uid: UUID
    name: str
    special_use: str | None
    epoch_id: int
    history_below: int
    notify_from: datetime
    announcing: bool
    keep: Keep


@dataclass(frozen=True, slots=True)
class Fresh:
    """One fetched message, read and ready to be stored."""

    imap_uid: int
    flags: tuple[str, ...]
    modseq: int | None
    internal_at: datetime | None
    size: int
    digest: bytes
    mail: Mail
    raw: Raw | None
    email_id: str | None
    server_thread: str | None


@dataclass(frozen=True, slots=True)
class Recognised:
    """One message of which no byte was fetched: the server says that it is one with this digest."""

    imap_uid: int
    flags: tuple[str, ...]
    modseq: int | None
    digest: bytes


@dataclass(frozen=True, slots=True)
class Stub:
    """A UID whose message cannot be had, and why: stored so that the cursor passes it."""

    imap_uid: int
    flags: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit stores. ``passed``: the UIDs that the cursor has after it, but for those recognised
    whose message has a place in the folder by then: they are to be fetched."""

    fresh: tuple[Fresh, ...]
    stubs: tuple[Stub, ...]
    passed: Ranges
    recognised: tuple[Recognised, ...] = ()

    @property
    def messages(self) -> list[Fresh | Recognised]:
        """All that is no stub, by UID."""
        return sorted([*self.fresh, *self.recognised], key=lambda each: each.imap_uid)


def store_batch(session: Session, folder: FolderContext, batch: Batch) -> int:
    """Add a batch to the transaction; returns how many messages are new to the mailbox."""
    every = batch.messages
    threadables = {fresh.imap_uid: _threadable(fresh) for fresh in batch.fresh}
    by_digest, drawn, references, subjects = run_all(
        session,
        [
            (BY_DIGEST, _digests(folder, every)),
            (NEW_IDS, {"n": len(batch.fresh)}),
            *questions(folder.mailbox_id, list(threadables.values())),
        ],
    )
    known = _match(by_digest, every)
    batch = _settled(batch, known)
    new = [fresh for fresh in batch.fresh if fresh.imap_uid not in known]
    ids = {fresh.imap_uid: row.message for fresh, row in zip(new, drawn, strict=False)}
    uids = dict(zip(ids, uuid7s(len(new)), strict=True))
    fresh_threads = (row.thread for row in drawn)
    threading = thread(
        [threadables[name] for name in ids],
        {row.message_id: row.thread_id for row in references},
        {row.thread_subject: row.thread_id for row in subjects},
        lambda: next(fresh_threads),
    )
    merge(session, folder.mailbox_id, threading.merged)
    ours = _sent_by_us(session, folder, new)
    outbound.copies_found(session, folder.mailbox_id, _copies(new, ours, uids))
    caused = origins.of_arriving(session, [match.id for match in known.values()], folder.folder_id)
    little = len(new) <= FEW and not any(isinstance(fresh.raw, Bulk) for fresh in new)
    with together(session) if little else nullcontext():
        put(
            session,
            "message_references",
            REFERENCE_COLUMNS,
            [(folder.mailbox_id, name, thread_id) for name, thread_id in threading.remember.items()],
        )
        rows = _message_rows(folder, new, ids, uids, threading.threads, ours)
        put(session, "messages", MESSAGE_COLUMNS, rows)
        _put_raw(session, folder, new, ids)
        put(session, "attachments", ATTACHMENT_COLUMNS, _attachment_rows(folder, new, ids))
        reports.put_reports(session, folder.mailbox_id, [(ids[f.imap_uid], f.mail.report) for f in new])
        for wait, arrived in ((0.0, True), (HISTORY_WAITS, False)):
            due = [ids[fresh.imap_uid] for fresh in new if _announced(folder, fresh) is arrived]
            search.note(session, folder.mailbox_id, due, wait)
        there = {**ids, **{uid: match.id for uid, match in known.items()}}
        put(session, "places", PLACE_COLUMNS, _place_rows(folder, batch, there))
        revived = [match.id for match in known.values() if match.missing]
        if revived:
            tell(session, REVIVE, {"ids": revived})
        passed = {
            "passed": batch.passed.dump(),
            "epoch_id": folder.epoch_id,
            "uids": [each.imap_uid for each in [*batch.messages, *batch.stubs]],
        }
        tell(session, PASS_OVER, passed)
        record(session, _events(folder, batch, new, uids, known, ours, caused))
    answered = {name for fresh in new if fresh.mail.message_id in ours for name in fresh.mail.in_reply_to}
    replies.mark_answered(session, folder.mailbox_id, answered)
    return len(new)


@dataclass(frozen=True, slots=True)
class _Match:
    """A message whose bytes came. ``renumbered``: it never left, its folder got a new UIDVALIDITY; it went
    missing in the very transaction that began this epoch. ``flags``: those it had before."""

    id: int
    uid: UUID
    missing: bool
    renumbered: bool
    flags: tuple[str, ...]


def _settled(batch: Batch, known: Mapping[int, _Match]) -> Batch:
    """The batch without what was recognised and is not to be had."""
    passed = batch.passed
    for each in batch.recognised:
        if each.imap_uid not in known:
            passed = passed.remove(each.imap_uid, each.imap_uid)
    recognised = tuple(each for each in batch.recognised if each.imap_uid in known)
    return replace(batch, passed=passed, recognised=recognised)


def _digests(folder: FolderContext, messages: Sequence[Fresh | Recognised]) -> dict[str, object]:
    return {
        "mailbox_id": folder.mailbox_id,
        "epoch_id": folder.epoch_id,
        "folder_id": folder.folder_id,
        "digests": [item.digest for item in messages],
    }


def _match(rows: Sequence[Any], fresh: Sequence[Fresh | Recognised]) -> dict[int, _Match]:
    """Known messages with the bytes of fetched ones, each used once: matching is of multisets, and a
    message with a place in this folder already is not the one that came."""
    free: defaultdict[bytes, list[_Match]] = defaultdict(list)
    for row in rows:
        if not row.here:
            free[bytes(row.digest)].append(
                _Match(row.id, row.uid, row.state == "missing", row.renumbered, tuple(row.flags or ()))
            )
    matched: dict[int, _Match] = {}
    for item in sorted(fresh, key=lambda f: f.imap_uid):
        if free[item.digest]:
            matched[item.imap_uid] = free[item.digest].pop(0)
    return matched


def _threadable(fresh: Fresh) -> Threadable:
    """What the server counts as a thread is named among the Message-IDs, as none of them can be."""
    mail = fresh.mail
    theirs = f"thread {fresh.server_thread}" if fresh.server_thread else None
    names = dict.fromkeys(
        name for name in (mail.message_id, *mail.references, *mail.in_reply_to, theirs) if name is not None
    )
    reply = bool(mail.subject) and mail.thread_subject != mail.subject.strip().casefold()
    return Threadable(tuple(names), mail.thread_subject, reply)


def _sent_by_us(session: Session, folder: FolderContext, new: Sequence[Fresh]) -> dict[str, UUID]:
    """Outbound messages whose copies these are, by Message-ID; asked of the Sent folder only."""
    if folder.special_use != "\\Sent":
        return {}
    names = [fresh.mail.message_id for fresh in new if fresh.mail.message_id]
    rows = session.execute(SENT_BY_US, {"mailbox_id": folder.mailbox_id, "message_ids": names})
    return {row.message_id: row.uid for row in rows}


def _copies(new: Sequence[Fresh], ours: dict[str, UUID], uids: dict[int, UUID]) -> dict[UUID, UUID]:
    """The attempts that new copies in Sent prove, each with the copy's id."""
    return {
        attempt: uids[fresh.imap_uid]
        for fresh in new
        if fresh.mail.message_id in ours
        for attempt in attempts_of(fresh.mail.headers)
    }


def _announced(folder: FolderContext, fresh: Fresh) -> bool:
    """New since the first look, or dated from the wished day on; INTERNALDATE has whole seconds."""
    return folder.announcing and (
        fresh.imap_uid >= folder.history_below
        or (fresh.internal_at is not None and fresh.internal_at >= folder.notify_from.replace(microsecond=0))
    )


def _addresses(mail: Mail) -> dict[str, list[dict[str, str]]]:
    def plain(people: tuple[Address, ...]) -> list[dict[str, str]]:
        return [{"name": person.name, "address": person.address} for person in people]

    fields = {
        "from": mail.from_,
        "sender": mail.sender,
        "reply_to": mail.reply_to,
        "to": mail.to,
        "cc": mail.cc,
        "bcc": mail.bcc,
    }
    return {field: plain(people) for field, people in fields.items() if people}


def _message_rows(
    folder: FolderContext,
    new: Sequence[Fresh],
    ids: dict[int, int],
    uids: dict[int, UUID],
    threads: Sequence[int],
    ours: dict[str, UUID],
) -> list[Row]:
    keep_body = folder.keep is not Keep.HEADERS
    return [
        (
            ids[fresh.imap_uid],
            uids[fresh.imap_uid],
            folder.mailbox_id,
            fresh.digest,
            fresh.size,
            fresh.internal_at,
            mail.date,
            mail.message_id,
            list(mail.in_reply_to),
            mail.subject,
            Jsonb(_addresses(mail)),
            Jsonb(mail.headers),
            mail.text if keep_body else None,
            mail.html if keep_body else None,
            mail.content_type,
            mail.auto_submitted,
            mail.list_id,
            thread_id,
            mail.thread_subject,
            list(mail.defects),
            _announced(folder, fresh),
            ours.get(mail.message_id) if mail.message_id else None,
            fresh.email_id,
        )
        for fresh, thread_id in zip(new, threads, strict=True)
        if (mail := fresh.mail)
    ]


def _put_raw(session: Session, folder: FolderContext, new: Sequence[Fresh], ids: dict[int, int]) -> None:
    kept = [(ids[fresh.imap_uid], fresh.raw) for fresh in new if fresh.raw is not None]
    small = [(name, folder.mailbox_id, content) for name, content in kept if isinstance(content, bytes)]
    put(session, "raw_messages", RAW_COLUMNS, small)
    for name, large in kept:
        if isinstance(large, Bulk):
            with raw(session).cursor() as cursor, cursor.copy(COPY_RAW) as copy:
                copy.write(COPY_BEGIN + COPY_RAW_ROW.pack(3, 8, name, 8, folder.mailbox_id, len(large)))
                for piece in windows(large):
                    copy.write(piece)
                copy.write(COPY_END)


def _attachment_rows(folder: FolderContext, new: Sequence[Fresh], ids: dict[int, int]) -> list[Row]:
    return [
        (
            ids[fresh.imap_uid],
            part.part,
            folder.mailbox_id,
            part.name,
            part.content_type,
            part.size,
            part.digest,
            part.content_id,
            part.disposition,
        )
        for fresh in new
        for part in fresh.mail.attachments
    ]


def _place_rows(folder: FolderContext, batch: Batch, message_ids: dict[int, int]) -> list[Row]:
    rows: list[Row] = [
        (
            folder.epoch_id,
            each.imap_uid,
            folder.mailbox_id,
            message_ids[each.imap_uid],
            list(each.flags),
            each.modseq,
            None,
        )
        for each in batch.messages
    ]
    rows.extend(
        (folder.epoch_id, stub.imap_uid, folder.mailbox_id, None, list(stub.flags), None, stub.reason)
        for stub in batch.stubs
    )
    return rows


def _events(
    folder: FolderContext,
    batch: Batch,
    new: Sequence[Fresh],
    uids: dict[int, UUID],
    known: dict[int, _Match],
    ours: dict[str, UUID],
    caused: dict[int, str],
) -> list[NewEvent]:
    events: list[NewEvent] = []
    created = {fresh.imap_uid for fresh in new}
    for fresh in batch.messages:
        if isinstance(fresh, Fresh) and fresh.imap_uid in created:
            if _announced(folder, fresh):
                events.append(_arrival(folder, fresh, uids[fresh.imap_uid], ours))
            continue
        match = known[fresh.imap_uid]
        kind = "message.moved" if match.missing else "message.copied"
        if match.renumbered:  # ``folder.reset`` has told all but its flags
            kind = "message.flags_changed"
            if match.flags == fresh.flags:
                continue
        events.append(
            NewEvent(
                kind,
                folder.mailbox_id,
                str(match.uid),
                {
                    "mailbox": str(folder.mailbox_uid),
                    "folder": folder.name,
                    "imap_uid": fresh.imap_uid,
                    "flags": list(fresh.flags),
                    "origin": caused[match.id],
                },
            )
        )
    events.extend(
        NewEvent(
            "message.unreadable",
            folder.mailbox_id,
            str(folder.folder_uid),
            {
                "mailbox": str(folder.mailbox_uid),
                "folder": folder.name,
                "imap_uid": stub.imap_uid,
                "reason": stub.reason,
            },
        )
        for stub in batch.stubs
    )
    history = sum(1 for fresh in new if not _announced(folder, fresh))
    if history:
        events.append(
            NewEvent(
                "folder.progress",
                folder.mailbox_id,
                str(folder.folder_uid),
                {"mailbox": str(folder.mailbox_uid), "folder": folder.name, "stored": history},
            )
        )
    return events


def _arrival(folder: FolderContext, fresh: Fresh, uid: UUID, ours: dict[str, UUID]) -> NewEvent:
    mail = fresh.mail
    outbound = ours.get(mail.message_id) if mail.message_id else None
    data: dict[str, Any] = {
        "mailbox": str(folder.mailbox_uid),
        "folder": folder.name,
        "imap_uid": fresh.imap_uid,
        "message_id": mail.message_id,
        "subject": mail.subject,
        "from": [person.address for person in mail.from_],
        "size": fresh.size,
        "flags": list(fresh.flags),
    }
    if outbound is not None:
        data["outbound"] = str(outbound)
    kind = "message.filed" if folder.special_use in OWN_MAIL else "message.received"
    return NewEvent(kind, folder.mailbox_id, str(uid), data, str(outbound) if outbound else None)
