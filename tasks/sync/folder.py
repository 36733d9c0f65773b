"""Bringing one folder in step: plan, fetch, flags, comparison, and the cursor last."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar
from uuid import UUID

from sqlalchemy import text, update
from sqlalchemy.orm import Session

from config.errors import InternalError
from schema.database import run
from schema.tables.mailboxes import Keep
from schema.tables.sync import Folder
from tasks.sync import compare, epochs
from tasks.sync.fetch import fill_holes
from tasks.sync.folders import StoredFolder, load_folders, note_object_id
from tasks.sync.plan import in_doubt, plan_sync, stood_still
from tasks.sync.ranges import Ranges
from tasks.sync.store import FolderContext
from tasks.sync.values import (
    ChangedSince,
    Cursor,
    Look,
    NewestFlags,
    Nothing,
    Resync,
    Seen,
    StartEpoch,
    Tracking,
)
from tasks.sync.work import Work
from tasks.wire.imap import (
    Changes,
    CommandRefused,
    FolderStatus,
    ImapSession,
    Known,
    SeenFlags,
    Selected,
    UidSet,
)

COMPARE_WINDOW = 2000
FLAGS_A_COMMIT = 1000
SPANS_A_QUERY = 1000

T = TypeVar("T")

ADVANCE = text("""
    UPDATE mailwright.folder_epochs
    SET modseq = :modseq, modseq_before = :overlap, uidnext = :uidnext, messages = :messages,
        flags_checked_at = now(), doubted_at = CASE WHEN :doubt THEN now() ELSE doubted_at END
    WHERE id = :epoch_id
""")

COMPARED = text("UPDATE mailwright.folder_epochs SET compared_at = now() WHERE id = :epoch_id")


@dataclass(frozen=True, slots=True)
class FolderOutcome:
    """``changed``: something was written besides the cursor; ``complete``: nothing is left to do."""

    changed: bool
    complete: bool


NOTHING = FolderOutcome(changed=False, complete=True)


def sync_folder(work: Work, folder: StoredFolder, status: FolderStatus | None) -> FolderOutcome:
    """Bring one folder in step as far as the slice of time allows. A server that offers QRESYNC or
    CONDSTORE and then refuses it (IONOS, Yahoo) is asked again without the one, then without both."""
    try:
        return _sync_folder(work, folder, status)
    except CommandRefused:
        work.flush()
        imap = work.imap
        if imap.qresync:
            imap.qresync = False
        elif imap.condstore:
            imap.condstore = False
        elif imap.identifies:
            imap.identifies = False
        else:
            raise
        return sync_folder(work, _reload(work, folder.uid), status)


def tracking(imap: ImapSession, *, trusted: bool) -> Tracking:
    """The best way to hear of changes that this session has left and the provider is trusted with."""
    return Tracking.best(condstore=trusted and imap.condstore, qresync=trusted and imap.qresync)


def _sync_folder(work: Work, folder: StoredFolder, status: FolderStatus | None) -> FolderOutcome:
    best = tracking(work.imap, trusted=work.route.trust_condstore)
    if status is not None and folder.cursor is not None and status.uidvalidity is not None:
        seen = Seen(status.uidvalidity, status.uidnext, status.messages, status.highestmodseq)
        plan = plan_sync(folder.cursor, seen, best, work.now)
        if isinstance(plan, Nothing):
            return _nothing(work, folder)
    selected, best = _open(work, folder, best)
    object_id = selected.object_id
    if object_id is not None and object_id != folder.object_id:
        work.commit(lambda session: note_object_id(session, folder, object_id))
    seen = Seen(selected.uidvalidity, selected.uidnext, selected.messages, selected.highestmodseq)
    plan = plan_sync(folder.cursor, seen, best, work.now)
    reset = False
    if isinstance(plan, StartEpoch):
        folder, reset = _start_epoch(work, folder, seen)
        if folder.cursor is None:
            raise InternalError(f'folder "{folder.name}" has no cursor after it was opened.')
        plan = Look(holes=True, flags=None, compare=False)
    if isinstance(plan, Nothing):
        return _nothing(work, folder)
    assert folder.cursor is not None
    assert folder.epoch_id is not None
    context = context_of(work, folder, folder.epoch_id)
    outcome = _look(work, context, folder.cursor, seen, plan, selected.changes)
    if (folder.failures and outcome.complete) or (folder.resets and not reset):
        work.later(lambda session: _is_well(session, folder.id, renumbered=reset))
    return FolderOutcome(outcome.changed or reset, outcome.complete)


def _open(work: Work, folder: StoredFolder, best: Tracking) -> tuple[Selected, Tracking]:
    """Open the folder; with QRESYNC its answer tells what changed. What of that is left then."""
    cursor = folder.cursor
    known = None
    believed = best is Tracking.QRESYNC and cursor is not None and not in_doubt(cursor, work.now)
    if believed and cursor is not None and cursor.since is not None:
        known = Known(cursor.uidvalidity, cursor.since, cursor.uids.spans)
    return work.imap.select(folder.wire_name, known=known), tracking(
        work.imap, trusted=work.route.trust_condstore
    )


def _nothing(work: Work, folder: StoredFolder) -> FolderOutcome:
    if folder.resets or folder.failures:
        work.later(lambda session: _is_well(session, folder.id))
    return NOTHING


def context_of(work: Work, folder: StoredFolder, epoch_id: int) -> FolderContext:
    """What batches of this folder need to know."""
    return FolderContext(
        mailbox_id=work.route.mailbox_id,
        mailbox_uid=work.route.uid,
        folder_id=folder.id,
        folder_uid=folder.uid,
        name=folder.name,
        special_use=folder.special_use,
        epoch_id=epoch_id,
        history_below=folder.history_below,
        notify_from=work.route.notify_from,
        announcing=work.now >= work.route.notify_from,
        keep=Keep(work.route.keep),
    )


def _start_epoch(work: Work, folder: StoredFolder, seen: Seen) -> tuple[StoredFolder, bool]:
    top = epochs.highest_uid(work, seen, 0)
    reset = folder.epoch_id is not None
    if folder.epoch_id is None:
        work.commit(lambda session: epochs.open_epoch(session, work.route.mailbox_id, folder, seen, top))
    elif folder.resets >= epochs.RESETS_IN_A_ROW:
        raise FolderStopped(
            f'folder "{folder.name}" was renumbered {folder.resets} times in a row; it is left for a day.'
        )
    else:
        epochs.rebuild(work, folder, context_of(work, folder, folder.epoch_id), seen, top)
    return _reload(work, folder.uid), reset


class FolderStopped(InternalError):
    """This folder cannot be followed for now; the others go on."""


def _reload(work: Work, uid: UUID) -> StoredFolder:
    with work.reading() as session:
        return next(f for f in load_folders(session, work.route.mailbox_id) if f.uid == uid)


@dataclass(slots=True)
class _Tally:
    """What a look found: flags that ``changed``, places ``gone``; ``doubt``: MODSEQs that cannot be."""

    changed: int = 0
    gone: int = 0
    doubt: bool = False


def _look(
    work: Work, context: FolderContext, cursor: Cursor, seen: Seen, plan: Look, told: Changes | None
) -> FolderOutcome:
    placed_before = work.placed
    uids, left, tally = cursor.uids, False, _Tally(doubt=plan.doubt)
    last = epochs.highest_uid(work, seen, cursor.uids.top)
    if plan.holes:
        uids, left = fill_holes(work, context, uids, last)
        if stood_still(cursor, seen) and not left:
            with work.reading() as session:
                came = compare.count_places(session, context.epoch_id, cursor.uidnext or 1)
            tally.doubt = tally.doubt or came > 0
    if not work.out_of_time:
        match plan.flags:
            case Resync(modseq):
                _resync(work, context, cursor.uids, modseq, told, tally)
            case ChangedSince(modseq):
                _changed_since(work, context, cursor.uids, modseq, tally)
            case NewestFlags(count):
                _newest_flags(work, context, count, tally)
            case None:
                pass
    compared = plan.compare or tally.doubt
    if not left and not compared and not work.out_of_time:
        came = work.placed - placed_before
        compared = not (_reckoned(cursor, came, tally.gone) == seen.messages or _counted(work, context, seen))
        if compared and isinstance(plan.flags, Resync):
            work.imap.qresync = False  # it told less than happened: not again in this session
    if compared and not work.out_of_time:
        lost = _compare_all(work, context, uids, last, tally)
        if lost:
            uids, left = fill_holes(work, context, uids, last)
    changed = bool(tally.changed or tally.gone or work.placed - placed_before)
    if work.out_of_time:
        return FolderOutcome(changed, complete=False)
    if not left:
        overlap = cursor.modseq if "X-GM-EXT-1" in work.imap.capabilities else None
        work.later(lambda session: _advance(session, context, seen, overlap, doubt=tally.doubt))
    if compared:
        work.later(lambda session: _compared(session, context))
    return FolderOutcome(changed, complete=not left)


def _reckoned(cursor: Cursor, came: int, gone: int) -> int | None:
    """How many places are stored, reckoned from the last complete look; None where what came since then is
    not only from this one."""
    whole = cursor.uidnext is not None and cursor.uids == Ranges.below(cursor.uidnext)
    return cursor.messages - gone + came if whole else None


def _counted(work: Work, context: FolderContext, seen: Seen) -> bool:
    """Whether as many places are stored as the server has messages."""
    with work.reading() as session:
        return compare.count_places(session, context.epoch_id) == seen.messages


def _resync(
    work: Work, context: FolderContext, uids: Ranges, modseq: int, told: Changes | None, tally: _Tally
) -> None:
    """Take over what changed and what is gone among ``uids``, as the opening of the folder told, or else
    asked for. What was fetched since came with its flags."""
    if told is not None:
        _take_flags(work, context, (item for item in told.flags if item.uid <= uids.top), tally)
        _take_vanished(work, context, told.vanished, tally)
    elif uids:
        gone: list[tuple[int, int]] = []
        flags = work.imap.flags([(1, uids.top)], changed_since=modseq, vanished=gone.extend)
        _take_flags(work, context, flags, tally)
        _take_vanished(work, context, gone, tally)


def _changed_since(work: Work, context: FolderContext, uids: Ranges, modseq: int, tally: _Tally) -> None:
    if uids:
        _take_flags(work, context, work.imap.flags([(1, uids.top)], changed_since=modseq), tally)


def _take_flags(work: Work, context: FolderContext, flags: Iterable[SeenFlags], tally: _Tally) -> None:
    """Store flags that differ. One told without a MODSEQ is from a server that has none (SmarterMail)."""
    for group in grouped((item for item in flags if item.flags is not None), FLAGS_A_COMMIT):
        tally.doubt = tally.doubt or any(item.modseq is None for item in group)
        _apply(work, context, compare.Difference(tuple(group), ()), tally)


def _take_vanished(work: Work, context: FolderContext, vanished: UidSet, tally: _Tally) -> None:
    """Remove the places of these UIDs, of which many may never have been stored."""
    spans = Ranges.of(vanished).spans
    for group in grouped(spans, SPANS_A_QUERY):
        with work.reading() as session:
            stored = compare.stored_spans(session, context.epoch_id, group)
        for part in grouped(stored, FLAGS_A_COMMIT):
            _apply(work, context, compare.Difference((), tuple(part)), tally)


def _newest_flags(work: Work, context: FolderContext, count: int, tally: _Tally) -> None:
    with work.reading() as session:
        uids = compare.newest(session, context.epoch_id, count)
    if uids:
        _compare_window(work, context, uids[-1], uids[0], tally)


def _compare_all(work: Work, context: FolderContext, uids: Ranges, last: int, tally: _Tally) -> bool:
    """Hold every UID up to ``last`` against the server, in windows. True where it has messages that were
    passed over as if they were not there: they are holes again."""
    with work.reading() as session:
        windows = compare.windows(session, context.epoch_id, COMPARE_WINDOW, last)
    lost: list[int] = []
    for low, high in windows:
        if work.out_of_time:
            return False
        lost += [uid for uid in _compare_window(work, context, low, high, tally) if uid in uids]
    if work.route.history_days is not None:  # what is older was passed over on purpose
        lost = [uid for uid in lost if uid >= context.history_below]
    if lost:
        found = Ranges.of((uid, uid) for uid in lost)
        work.commit(lambda session: compare.open_holes(session, context.epoch_id, found))
    return bool(lost)


def _compare_window(work: Work, context: FolderContext, low: int, high: int, tally: _Tally) -> list[int]:
    """Compare one window of UIDs; those that the server has and we do not."""
    with work.reading() as session:
        stored = compare.stored_window(session, context.epoch_id, low, high)
    seen = [item for item in work.imap.flags([(low, high)]) if low <= item.uid <= high]
    work.progress()
    _apply(work, context, compare.difference(stored, seen), tally)
    return [item.uid for item in seen if item.uid not in stored]


def leave(work: Work, folder: StoredFolder) -> None:
    """Take the places of a folder away that is listed and not there: Dovecot lists one on that was deleted
    and has children. Should it be there again, it begins anew."""
    if folder.epoch_id is None:
        return
    context = context_of(work, folder, folder.epoch_id)
    with work.reading() as session:
        windows = compare.windows(session, context.epoch_id, COMPARE_WINDOW, 0)
        stored = [list(compare.stored_window(session, context.epoch_id, *window)) for window in windows]
    tally = _Tally()
    for uids in stored:
        _apply(work, context, compare.Difference((), tuple(uids)), tally)
    work.commit(lambda session: epochs.end(session, context.epoch_id))


def _apply(work: Work, context: FolderContext, found: compare.Difference, tally: _Tally) -> None:
    if found.changed or found.gone:
        tally.changed += work.commit(lambda session: compare.apply_difference(session, context, found))
    tally.gone += len(found.gone)


def _advance(
    session: Session, context: FolderContext, seen: Seen, overlap: int | None, *, doubt: bool
) -> None:
    """Move the cursor to what the server said when the pass began. While messages are left to fetch the
    numbers stay, so that the next look is not mistaken for *nothing changed*. ``overlap``: the MODSEQ that
    the next pass asks from once more, where HIGHESTMODSEQ runs ahead of what is shown (Gmail)."""
    run(
        session,
        ADVANCE,
        {
            "epoch_id": context.epoch_id,
            "modseq": seen.highestmodseq,
            "overlap": overlap,
            "uidnext": seen.uidnext,
            "messages": seen.messages,
            "doubt": doubt,
        },
    )


def _compared(session: Session, context: FolderContext) -> None:
    run(session, COMPARED, {"epoch_id": context.epoch_id})


def _is_well(session: Session, folder_id: int, *, renumbered: bool = False) -> None:
    """Forget what was wrong with a folder; that it was ``renumbered`` in this pass still counts."""
    resets = Folder.resets if renumbered else 0
    session.execute(
        update(Folder)
        .where(Folder.id == folder_id)
        .values(resets=resets, failures=0, retry_at=None, last_error=None)
    )


def grouped(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most ``size`` items, in order."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
