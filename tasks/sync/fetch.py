"""Fetching what the cursor has not: the highest hole first, in batches that are committed whole.

    holes of the cursor ──> a window of UIDs ──list──> chunks, newest first ──fetch──> batches ──> commit
                                                           │
                              asked for and not given ─────┴──> alone, counted; three times: a stub

A batch that fails half-way is committed as far as it came, so the next try starts behind it.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from sqlalchemy import text
from sqlalchemy.orm import Session

from schema.tables.mailboxes import Keep
from tasks.sync.compare import Difference, apply_difference
from tasks.sync.ranges import Ranges
from tasks.sync.store import Batch, FolderContext, Fresh, Recognised, Stub, store_batch
from tasks.sync.work import Work
from tasks.wire import mime
from tasks.wire.bulk import Bulk, sha256
from tasks.wire.imap import CommandRefused, Fetched, NoRoom

CHUNK_MESSAGES = 200
BATCH_BYTES = 8 * 2**20
HELD_BYTES = 12 * 2**20  # of all batches that the process is at
FIRST_WINDOW = 2048
LAST_WINDOW = 2**24
OVERHEAD = 8192  # bytes that a message weighs besides its own
SPARSE = 64
CAREFUL_MESSAGES = CHUNK_MESSAGES  # the one that killed the last try is among as many
TRIES = 3

COUNT_TRY = text("""
    INSERT INTO mailwright.fetch_failures AS f (epoch_id, imap_uid, tries, reason)
    VALUES (:epoch_id, :uid, 1, :reason)
    ON CONFLICT (epoch_id, imap_uid) DO UPDATE SET tries = f.tries + 1, reason = excluded.reason
    RETURNING tries
""")

TRIES_SO_FAR = text("""
    SELECT imap_uid, tries FROM mailwright.fetch_failures WHERE epoch_id = :epoch_id AND imap_uid = ANY(:uids)
""")

BY_EMAIL_ID = text("""
    -- Messages that the server knows by these and that lie elsewhere; index: messages_email_id.
    SELECT m.email_id, m.size, m.digest FROM mailwright.messages AS m
    WHERE m.mailbox_id = :mailbox_id AND m.email_id = ANY(:email_ids) AND m.state <> 'deleted'
      AND NOT EXISTS (
        SELECT 1 FROM mailwright.places AS p WHERE p.message_id = m.id AND p.epoch_id = :epoch_id
      )
""")

HERE_BEFORE = text("""
    -- Where messages with these bytes lie in the folder; indexes: messages_digest, places_message_id_idx.
    SELECT p.imap_uid FROM mailwright.messages AS m JOIN mailwright.places AS p ON p.message_id = m.id
    WHERE m.mailbox_id = :mailbox_id AND m.digest = ANY(:digests) AND p.epoch_id = :epoch_id
""")


@dataclass(slots=True)
class _Chunk:
    """What came of one chunk so far and is not handed to the writer yet."""

    fresh: list[Fresh] = field(default_factory=list)
    stubs: list[Stub] = field(default_factory=list)
    recognised: list[Recognised] = field(default_factory=list)
    lost: dict[int, str] = field(default_factory=dict)
    size: int = 0

    def take(self) -> tuple[tuple[Fresh, ...], tuple[Stub, ...]]:
        taken = tuple(self.fresh), tuple(self.stubs)
        self.fresh, self.stubs, self.size = [], [], 0
        return taken


def fill_holes(work: Work, folder: FolderContext, uids: Ranges, last: int) -> tuple[Ranges, bool]:
    """Fetch what of ``1..last`` is not in ``uids``. Returns the cursor reached, and whether anything is
    left (time ran out, or messages are to be tried again). Raises `NoRoom` when all else is done."""
    left = uids.holes(last)
    again = False
    lost: list[str] = []
    width = FIRST_WINDOW
    while (window := left.highest(width)) is not None:
        if work.out_of_time:
            return uids, True
        low, high = window
        listed = _list(work, folder, low, high)
        work.progress()
        width = min(LAST_WINDOW, width * 4) if len(listed) < SPARSE else FIRST_WINDOW
        top = high
        for chunk in _chunks(listed, lambda: 1 if work.careful else CHUNK_MESSAGES):
            if work.out_of_time:
                return uids, True
            passed, retry = _fetch_chunk(work, folder, chunk, Ranges(((chunk[0], top),)), lost)
            top = chunk[0] - 1
            again = again or retry
            for span in passed:
                uids = uids.add(*span)
        if top >= low:
            _hand_over(work, folder, Batch((), (), Ranges(((low, top),))))
            uids = uids.add(low, top)
        left = left.remove(low, high)
    if lost:
        work.flush()
        raise NoRoom(lost[0])
    return uids, again


def _list(work: Work, folder: FolderContext, low: int, high: int) -> list[int]:
    """The UIDs that are there between two bounds, ascending. Servers answer ``n:*`` with the last
    message whatever its UID, so what lies outside is dropped. Without a date a message is not old."""
    oldest = work.route.history_days
    if oldest is None or low >= folder.history_below:
        return sorted({seen.uid for seen in work.imap.flags([(low, high)]) if low <= seen.uid <= high})
    cutoff = work.now - timedelta(days=oldest)
    return sorted(
        {
            outline.uid
            for outline in work.imap.outlines([(low, high)])
            if low <= outline.uid <= high
            and (
                outline.uid >= folder.history_below
                or outline.internal_at is None
                or outline.internal_at >= cutoff
            )
        }
    )


def _chunks(uids: Sequence[int], size: Callable[[], int]) -> Iterator[Sequence[int]]:
    """Newest first; each chunk ascends, and is of the ``size`` wished for when its turn comes."""
    end = len(uids)
    while end > 0:
        start = max(0, end - size())
        yield uids[start:end]
        end = start


def _fetch_chunk(
    work: Work, folder: FolderContext, uids: Sequence[int], span: Ranges, lost: list[str]
) -> tuple[Ranges, bool]:
    """Fetch one chunk; ``span`` is the range of UIDs it settles. Returns what was passed over and
    whether something is to be tried again; ``lost`` is told what had no room here."""
    careful = work.careful > 0
    if careful:
        _be_careful(work, folder, uids)
    asked = _without_quarantined(work, folder, uids) if careful else list(uids)
    quarantined = set(uids).difference(asked)
    recognised = _recognise(work, folder, asked)
    known = {each.imap_uid for each in recognised}
    asked = [uid for uid in asked if uid not in known]
    missing = set(asked)
    spent = [Stub(uid, (), "could not be fetched") for uid in quarantined]
    chunk = _Chunk(stubs=spent, recognised=recognised)
    try:
        for fetched in _ask(work, folder, asked):
            if fetched.uid not in missing:
                continue
            missing.remove(fetched.uid)
            _take(work, folder, chunk, fetched)
            work.progress()
            if _is_full(work, chunk):
                _hand_over_part(work, folder, chunk)
                work.runtime.held[threading.get_ident()] = 0
    except CommandRefused:  # the session lives: what was not given is asked for alone
        if (work.imap.condstore or work.imap.identifies) and len(missing) == len(asked):
            raise  # unless it is MODSEQ (IONOS), or the identity, that is refused
    except Exception:
        _hand_over_part(work, folder, chunk)
        work.flush()
        raise
    finally:
        work.runtime.held.pop(threading.get_ident(), None)
    retry = _ask_alone(work, folder, chunk, [uid for uid in asked if uid in missing])
    for uid in [*retry, *chunk.lost]:
        span = span.remove(uid, uid)
    fresh, stubs = chunk.take()
    _hand_over(work, folder, Batch(fresh, stubs, span, tuple(chunk.recognised)))
    lost.extend(chunk.lost.values())
    return span, bool(retry)


def _is_full(work: Work, chunk: _Chunk) -> bool:
    """Whether a chunk is to be committed as far as it came: it is large, or all that are under way are."""
    held = work.runtime.held
    held[threading.get_ident()] = chunk.size
    return chunk.size >= BATCH_BYTES or sum(tuple(held.values())) >= HELD_BYTES


def _recognise(work: Work, folder: FolderContext, uids: Sequence[int]) -> list[Recognised]:
    """Those that are messages of the mailbox already, by EMAILID or X-GM-MSGID, and of the same size; each
    message once, and none that has a place in this folder: that one's bytes are compared."""
    if not (uids and work.imap.identifies):
        return []
    told = {each.email_id: each for each in work.imap.identities(uids)}
    asked = {"mailbox_id": folder.mailbox_id, "epoch_id": folder.epoch_id, "email_ids": list(told)}
    work.flush()
    rows = work.runtime.db.ask(BY_EMAIL_ID, asked)
    sizes = {row.email_id: (row.size, bytes(row.digest)) for row in rows}
    return [
        Recognised(each.uid, each.flags, each.modseq, sizes[name][1])
        for name, each in told.items()
        if name in sizes and sizes[name][0] == each.size
    ]


def _be_careful(work: Work, folder: FolderContext, uids: Sequence[int]) -> None:
    """Count the try before it is made, so that a message that kills its worker is found out."""
    for uid in uids:
        work.commit(
            partial(_count_try, epoch_id=folder.epoch_id, uid=uid, reason="ended its worker or session")
        )
    work.careful = max(0, work.careful - len(uids))


def _without_quarantined(work: Work, folder: FolderContext, uids: Sequence[int]) -> list[int]:
    rows = work.runtime.db.ask(TRIES_SO_FAR, {"epoch_id": folder.epoch_id, "uids": list(uids)})
    spent = {row.imap_uid for row in rows if row.tries > TRIES}
    return [uid for uid in uids if uid not in spent]


def _ask(work: Work, folder: FolderContext, uids: Sequence[int]) -> Iterator[Fetched]:
    return work.imap.fetch(
        uids,
        max_bytes=work.runtime.settings.max_message_bytes,
        headers_only=folder.keep is Keep.HEADERS,
    )


def _ask_alone(work: Work, folder: FolderContext, chunk: _Chunk, uids: Sequence[int]) -> list[int]:
    """Ask again for what the server passed over with OK. Returns those to be tried another time."""
    retry: list[int] = []
    for uid in uids:
        flags = _flags_of(work, uid)
        if flags is None:
            continue  # expunged meanwhile
        answer = _ask_one(work, folder, uid)
        if answer is not None:
            _take(work, folder, chunk, answer)
            continue
        tries = work.commit(
            partial(_count_try, epoch_id=folder.epoch_id, uid=uid, reason="the server gave no body")
        )
        if tries < TRIES:
            retry.append(uid)
        else:
            chunk.stubs.append(Stub(uid, flags, "the server gave no body"))
    return retry


def _flags_of(work: Work, uid: int) -> tuple[str, ...] | None:
    """Flags of one message, None where it is not there; () where the server says NO to these too."""
    try:
        listed = [seen for seen in work.imap.flags([(uid, uid)]) if seen.uid == uid]
    except CommandRefused:
        return ()
    return listed[0].flags or () if listed else None


def _ask_one(work: Work, folder: FolderContext, uid: int) -> Fetched | None:
    try:
        answers = list(_ask(work, folder, [uid]))
    except CommandRefused:
        return None
    return next((item for item in answers if item.uid == uid), None)


def _count_try(session: Session, epoch_id: int, uid: int, reason: str) -> int:
    row = session.execute(COUNT_TRY, {"epoch_id": epoch_id, "uid": uid, "reason": reason})
    return int(row.scalar_one())


def _take(work: Work, folder: FolderContext, chunk: _Chunk, fetched: Fetched) -> None:
    if fetched.lost is not None:
        chunk.lost[fetched.uid] = fetched.lost
        return
    if fetched.body is None:
        limit = work.runtime.settings.max_message_bytes
        chunk.stubs.append(Stub(fetched.uid, fetched.flags, f"larger than {limit} bytes"))
        return
    with work.runtime.reading_large if isinstance(fetched.body, Bulk) else nullcontext():
        chunk.fresh.append(prepare(fetched, folder.keep))
    chunk.size += len(fetched.body)  # of a file too: its text may be long


def prepare(fetched: Fetched, keep: Keep) -> Fresh:
    """Read one fetched message: the part of storing that needs no database."""
    assert fetched.body is not None
    size = len(fetched.body)
    if keep is Keep.HEADERS and fetched.size is not None:
        size = fetched.size
    return Fresh(
        imap_uid=fetched.uid,
        flags=fetched.flags,
        modseq=fetched.modseq,
        internal_at=fetched.internal_at,
        size=size,
        digest=sha256(fetched.body),
        mail=mime.read(fetched.body),
        raw=fetched.body if keep is Keep.EVERYTHING else None,
        email_id=fetched.email_id,
        server_thread=fetched.thread_id,
    )


def _let_go(work: Work, folder: FolderContext, arrived: Sequence[Fresh]) -> None:
    """Take away the places that these messages had in this folder and have not any more: one that was moved
    out and back again between two looks is no new mail. True duplicates are still where they were."""
    if work.storing:
        work.flush()
    asked = {
        "mailbox_id": folder.mailbox_id,
        "epoch_id": folder.epoch_id,
        "digests": [fresh.digest for fresh in arrived],
    }
    before = sorted(row.imap_uid for row in work.runtime.db.ask(HERE_BEFORE, asked))
    if not before:
        return
    there = {seen.uid for seen in work.imap.flags([(uid, uid) for uid in before])}
    gone = tuple(uid for uid in before if uid not in there)
    if gone:
        work.commit(lambda session: apply_difference(session, folder, Difference((), gone)))


def _hand_over_part(work: Work, folder: FolderContext, chunk: _Chunk) -> None:
    """Commit what there is of a chunk; only the UIDs themselves are passed over."""
    fresh, stubs = chunk.take()
    if fresh or stubs:
        uids = [item.imap_uid for item in fresh] + [item.imap_uid for item in stubs]
        passed = Ranges.of((uid, uid) for uid in uids)
        _hand_over(work, folder, Batch(fresh, stubs, passed))


def _hand_over(work: Work, folder: FolderContext, batch: Batch) -> None:
    if not batch.passed:
        return
    arrived = [fresh for fresh in batch.fresh if fresh.imap_uid >= folder.history_below]
    if arrived:
        _let_go(work, folder, arrived)
    work.placed += len(batch.messages) + len(batch.stubs)
    weight = sum(OVERHEAD + fresh.size for fresh in batch.fresh)
    work.later(lambda session: store_batch(session, folder, batch), weight)
