"""Bringing one folder in step: plan, fetch, flags, comparison, and the cursor last."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from config.errors import InternalError
from schema.tables.mailboxes import Keep
from schema.tables.sync import Folder, FolderEpoch
from tasks.sync import compare, epochs
from tasks.sync.fetch import fill_holes
from tasks.sync.folders import StoredFolder, load_folders
from tasks.sync.plan import plan_sync, same_numbers
from tasks.sync.ranges import Ranges
from tasks.sync.store import FolderContext
from tasks.sync.values import ChangedSince, Cursor, Look, NewestFlags, Nothing, Seen, StartEpoch
from tasks.sync.work import Work
from tasks.wire.imap import CommandRefused, FolderStatus

COMPARE_WINDOW = 2000
FLAGS_A_COMMIT = 500

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FolderOutcome:
    """``changed``: something was written besides the cursor; ``complete``: nothing is left to do."""

    changed: bool
    complete: bool


NOTHING = FolderOutcome(changed=False, complete=True)


def sync_folder(work: Work, folder: StoredFolder, status: FolderStatus | None) -> FolderOutcome:
    """Bring one folder in step as far as the slice of time allows. A server that offers CONDSTORE and
    then refuses it (IONOS, Yahoo) is asked again without."""
    try:
        return _sync_folder(work, folder, status)
    except CommandRefused:
        if not work.imap.condstore:
            raise
        work.imap.condstore = False
        return _sync_folder(work, _reload(work, folder.uid), status)


def _sync_folder(work: Work, folder: StoredFolder, status: FolderStatus | None) -> FolderOutcome:
    can = work.route.trust_condstore and work.imap.condstore
    if status is not None and folder.cursor is not None and status.uidvalidity is not None:
        seen = Seen(status.uidvalidity, status.uidnext, status.messages, status.highestmodseq)
        plan = plan_sync(folder.cursor, seen, condstore=can, now=work.now)
        if isinstance(plan, Nothing):
            return _nothing(work, folder)
    selected = work.imap.select(folder.wire_name)
    seen = Seen(selected.uidvalidity, selected.uidnext, selected.messages, selected.highestmodseq)
    plan = plan_sync(folder.cursor, seen, condstore=can, now=work.now)
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
    outcome = _look(work, folder, context_of(work, folder, folder.epoch_id), folder.cursor, seen, plan)
    if folder.resets and not reset:
        work.commit(lambda session: _is_well(session, folder.id))
    return FolderOutcome(outcome.changed or reset, outcome.complete)


def _nothing(work: Work, folder: StoredFolder) -> FolderOutcome:
    if folder.resets or folder.failures:
        work.commit(lambda session: _is_well(session, folder.id))
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
    with work.runtime.db.begin() as session:
        return next(f for f in load_folders(session, work.route.mailbox_id) if f.uid == uid)


def _look(
    work: Work, folder: StoredFolder, context: FolderContext, cursor: Cursor, seen: Seen, plan: Look
) -> FolderOutcome:
    stored_before = work.writer.stored
    uids, left, differences = cursor.uids, False, 0
    if plan.holes:
        last = epochs.highest_uid(work, seen, cursor.uids.top)
        uids, left = fill_holes(work, context, cursor.uids, last)
        work.writer.flush()
    if not work.out_of_time:
        match plan.flags:
            case ChangedSince(modseq):
                differences += _changed_since(work, context, uids, modseq)
            case NewestFlags(count):
                differences += _newest_flags(work, context, count)
            case None:
                pass
    compared = plan.compare
    if not left and not compared:
        with work.runtime.db.begin() as session:
            compared = compare.count_places(session, context.epoch_id) != seen.messages
            compared = compared and (plan.holes or not same_numbers(cursor, seen))
    if compared and not work.out_of_time:
        differences += _compare_all(work, context)
    if work.out_of_time:
        return FolderOutcome(changed=bool(differences or work.writer.stored - stored_before), complete=False)
    work.commit(lambda session: _advance(session, context, seen, left=left, compared=compared))
    return FolderOutcome(changed=bool(differences or work.writer.stored - stored_before), complete=not left)


def _changed_since(work: Work, context: FolderContext, uids: Ranges, modseq: int) -> int:
    if not uids:
        return 0
    found = 0
    for group in grouped(work.imap.flags([(1, uids.top)], changed_since=modseq), FLAGS_A_COMMIT):
        with work.runtime.db.begin() as session:
            stored = compare.stored_uids(session, context.epoch_id, [item.uid for item in group])
        found += _apply(work, context, compare.difference(stored, group, complete=False))
    return found


def _newest_flags(work: Work, context: FolderContext, count: int) -> int:
    with work.runtime.db.begin() as session:
        uids = compare.newest(session, context.epoch_id, count)
    return _compare_window(work, context, uids[-1], uids[0]) if uids else 0


def _compare_all(work: Work, context: FolderContext) -> int:
    with work.runtime.db.begin() as session:
        windows = compare.windows(session, context.epoch_id, COMPARE_WINDOW)
    return sum(_compare_window(work, context, low, high) for low, high in windows)


def _compare_window(work: Work, context: FolderContext, low: int, high: int) -> int:
    with work.runtime.db.begin() as session:
        stored = compare.stored_window(session, context.epoch_id, low, high)
    seen = [item for item in work.imap.flags([(low, high)]) if low <= item.uid <= high]
    work.progress()
    return _apply(work, context, compare.difference(stored, seen, complete=True))


def leave(work: Work, folder: StoredFolder) -> None:
    """Take the places of a folder away that is listed and not there: Dovecot lists one on that was deleted
    and has children. Should it be there again, it begins anew."""
    if folder.epoch_id is None:
        return
    context = context_of(work, folder, folder.epoch_id)
    with work.runtime.db.begin() as session:
        windows = compare.windows(session, context.epoch_id, COMPARE_WINDOW)
        stored = [list(compare.stored_window(session, context.epoch_id, *window)) for window in windows]
    for uids in stored:
        _apply(work, context, compare.Difference((), tuple(uids)))
    work.commit(lambda session: epochs.end(session, context.epoch_id))


def _apply(work: Work, context: FolderContext, found: compare.Difference) -> int:
    if found.changed or found.gone:
        work.commit(lambda session: compare.apply_difference(session, context, found))
    return len(found.changed) + len(found.gone)


def _advance(session: Session, context: FolderContext, seen: Seen, *, left: bool, compared: bool) -> None:
    """Move the cursor to what the server said when the pass began. With messages left to fetch the
    numbers stay, so that the next look is not mistaken for *nothing changed*."""
    values: dict[str, object] = {"modseq": seen.highestmodseq, "flags_checked_at": func.now()}
    if not left:
        values |= {"uidnext": seen.uidnext, "messages": seen.messages}
    if compared:
        values["compared_at"] = func.now()
    session.execute(update(FolderEpoch).where(FolderEpoch.id == context.epoch_id).values(**values))
    session.execute(
        update(Folder)
        .where(Folder.id == context.folder_id, Folder.failures > 0)
        .values(failures=0, retry_at=None, last_error=None)
    )


def _is_well(session: Session, folder_id: int) -> None:
    session.execute(
        update(Folder)
        .where(Folder.id == folder_id)
        .values(resets=0, failures=0, retry_at=None, last_error=None)
    )


def grouped(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most ``size`` items, in order."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
