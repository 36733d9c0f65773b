"""One group of commands on the wire: look, change, and commit what the server then shows.

What the server tells at once (flags read back, COPYUID) is stored with its events in the commit that
ends the commands; the sync that follows finds nothing new. What it does not tell the sync finds.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from schema.tables.sync import CommandKind, CommandState
from tasks.events import NewEvent, record
from tasks.sync import compare
from tasks.sync.commands import outcomes, queries
from tasks.sync.commands.identity import Identity, identify
from tasks.sync.commands.values import OURS, THEIRS, Change, Group, Item, agrees, wished
from tasks.sync.folder import context_of
from tasks.sync.folders import StoredFolder
from tasks.sync.ranges import Ranges
from tasks.sync.store import PASS_OVER, FolderContext
from tasks.sync.work import Work
from tasks.wire.imap import CommandRefused, Copied, Moved, SeenFlags, Selected, ranges

MARKED_ONLY = (
    "marked \\Deleted and left there: the server offers neither MOVE nor UIDPLUS, so it cannot be removed "
    "without what other programs have marked."
)
NOT_THE_ONE = "the server has another message under its number; nothing was changed."
RENUMBERED = "the folder was renumbered; the message is looked up again."


def carry_out(work: Work, folders: Mapping[int, StoredFolder], group: Group) -> None:
    """Do what a group asks for, and commit what became of it."""
    folder = folders.get(group.folder_id)
    changes = [item.change for item in group.items]
    if folder is None or folder.cursor is None or folder.epoch_id is None:
        return _later(work, changes)
    target = folders.get(group.target_id) if group.target_id is not None else None
    if group.target_id is not None and (target is None or not target.selectable):
        return _fail_all(work, changes, "the folder to put it into is not there any more.")
    try:
        selected = _open(work, folder)
        if selected.uidvalidity != folder.cursor.uidvalidity:
            return _later(work, changes)
        context = context_of(work, folder, folder.epoch_id)
        return _change(work, group, folder, context, target)
    finally:
        if work.imap.alive:
            with suppress(CommandRefused):  # nothing is selected after a SELECT that was refused
                work.imap.unselect()


def _change(
    work: Work, group: Group, folder: StoredFolder, context: FolderContext, target: StoredFolder | None
) -> None:
    if group.kind is CommandKind.MARK:
        return _mark(work, context, group)
    items = _verified(work, folder, group)
    if not items:
        return None
    if target is None:
        return _delete(work, context, items)
    return _transfer(work, _Transfer(group.kind, folder, context, target), items)


def _open(work: Work, folder: StoredFolder) -> Selected:
    """Select for writing, without CONDSTORE: what is read back needs no MODSEQ, and some servers that
    offer it refuse to tell (IONOS)."""
    offered, work.imap.condstore = work.imap.condstore, False
    try:
        return work.imap.select(folder.wire_name, readonly=False)
    finally:
        work.imap.condstore = offered


def _later(work: Work, changes: Sequence[Change]) -> None:
    """The sync is to build the new epoch first."""
    work.commit(partial(outcomes.defer, work=work, changes=changes, reason=RENUMBERED, refused=True))


def _fail_all(work: Work, changes: Sequence[Change], reason: str) -> None:
    def failed(session: Session) -> None:
        for change in changes:
            outcomes.fail(session, work, change, reason)

    work.commit(failed)


def _mark(work: Work, context: FolderContext, group: Group) -> None:
    uids = [item.uid for item in group.items]
    if group.add:
        work.imap.store(uids, group.add, add=True)
    if group.remove:
        work.imap.store(uids, group.remove, add=False)
    seen = {item.uid: item for item in work.imap.flags(ranges(uids))}
    work.commit(partial(_marked, work=work, context=context, group=group, seen=seen))


def _marked(
    session: Session, work: Work, context: FolderContext, group: Group, seen: Mapping[int, SeenFlags]
) -> None:
    """Store what the server shows: first what was wished for, as ours, then what else it changed."""
    stored = compare.stored_uids(session, context.epoch_id, [item.uid for item in group.items])
    ours: list[SeenFlags] = []
    theirs: list[SeenFlags] = []
    done: list[int] = []
    for item in group.items:
        shown = seen.get(item.uid)
        if shown is None or shown.flags is None:
            outcomes.end(session, [item.change.id], CommandState.VOID, f"it left {context.name} meanwhile.")
        elif not agrees(shown.flags, group.add, group.remove):
            outcomes.fail(session, work, item.change, "the server said OK and does not keep these flags.")
        else:
            between = wished(stored.get(item.uid, ()), group.add, group.remove)
            if between != tuple(sorted(stored.get(item.uid, ()))):
                ours.append(SeenFlags(item.uid, between, shown.modseq))
            if between != shown.flags:
                theirs.append(shown)
            done.append(item.change.id)
    for changed, origin in ((ours, OURS), (theirs, THEIRS)):
        if changed:
            compare.apply_difference(session, context, compare.Difference(tuple(changed), ()), origin)
    outcomes.end(session, done, CommandState.DONE)


def _verified(work: Work, folder: StoredFolder, group: Group) -> list[Item]:
    """The items whose UID is the message meant; the others end here."""
    found = identify(work, {item.uid: item.change for item in group.items})
    other = [item.change for item in group.items if found[item.uid] is Identity.OTHER]
    absent = [item.change for item in group.items if found[item.uid] is Identity.ABSENT]
    if other:
        _fail_all(work, other, NOT_THE_ONE)
    if absent:

        def gone(session: Session) -> None:
            outcomes.told(session, [change.id for change in absent if change.sent])
            left = [change.id for change in absent if not change.sent]
            outcomes.end(session, left, CommandState.VOID, f"it is not in {folder.name} any more.")

        work.commit(gone)
    return [item for item in group.items if found[item.uid] is Identity.SAME]


def _delete(work: Work, context: FolderContext, items: Sequence[Item]) -> None:
    removed = work.imap.expunge([item.uid for item in items])
    work.commit(partial(_removed, context=context, items=items, removed=removed))


def _removed(session: Session, context: FolderContext, items: Sequence[Item], removed: bool) -> None:
    ids = [item.change.id for item in items]
    uids = [item.uid for item in items]
    if removed:
        record(session, compare.remove_places(session, context, uids, OURS))
        alone = [item.change.id for item in items if len(item.change.places) == 1]
        outcomes.told(session, alone)  # ``message.deleted`` comes when every folder was looked at
        outcomes.end(session, [each for each in ids if each not in alone], CommandState.DONE)
    else:
        _left_marked(session, context, uids)
        outcomes.end(session, ids, CommandState.DONE, MARKED_ONLY)


def _left_marked(session: Session, context: FolderContext, uids: Sequence[int]) -> None:
    stored = compare.stored_uids(session, context.epoch_id, uids)
    marked = tuple(SeenFlags(uid, wished(stored[uid], ["\\Deleted"], ()), None) for uid in stored)
    compare.apply_difference(session, context, compare.Difference(marked, ()), OURS)


@dataclass(frozen=True, slots=True)
class _Transfer:
    """A copy or move that is under way."""

    kind: CommandKind
    source: StoredFolder
    context: FolderContext
    target: StoredFolder


def _transfer(work: Work, transfer: _Transfer, items: Sequence[Item]) -> None:
    """Copy or move. Without MOVE, which is one step, a copy may be there from an earlier try."""
    moving = transfer.kind is CommandKind.MOVE
    one_step = moving and "MOVE" in work.imap.capabilities
    made = [] if one_step else _made_before(work, transfer, [item for item in items if item.change.sent])
    if made:
        removed = moving and work.imap.expunge([item.uid for item in made])
        work.commit(partial(_transferred, transfer=transfer, items=made, moved=Moved(None, removed)))
    fresh = [item for item in items if item not in made]
    if not fresh:
        return
    uids = [item.uid for item in fresh]
    name = transfer.target.wire_name
    moved = work.imap.move(uids, name) if moving else Moved(work.imap.copy(uids, name), removed=False)
    work.commit(partial(_transferred, transfer=transfer, items=fresh, moved=moved))


def _made_before(work: Work, transfer: _Transfer, items: Sequence[Item]) -> list[Item]:
    """Those whose copy an earlier try has made: it is in the target, and is no message known there."""
    if not items:
        return []
    selected = work.imap.select(transfer.target.wire_name)
    target = transfer.target
    same_epoch = target.cursor is not None and selected.uidvalidity == target.cursor.uidvalidity
    made: list[Item] = []
    for item in items:
        change = item.change
        if change.name is None:
            continue  # copied twice rather than not at all
        uids = work.imap.search_message_id(change.name)
        if item.arrived is not None and same_epoch:
            uids = [uid for uid in uids if uid == item.arrived.uid]
        elif same_epoch and target.epoch_id is not None and uids:
            with work.reading() as session:
                known = compare.stored_uids(session, target.epoch_id, uids)
            uids = [uid for uid in uids if uid not in known]
        if any(verdict is Identity.SAME for verdict in identify(work, dict.fromkeys(uids, change)).values()):
            made.append(item)
    _open(work, transfer.source)
    return made


def _transferred(session: Session, transfer: _Transfer, items: Sequence[Item], moved: Moved) -> None:
    """Store what is known of a copy or move; what is not, the sync finds in the target."""
    context, target, moving = transfer.context, transfer.target, transfer.kind is CommandKind.MOVE
    uids = [item.uid for item in items]
    placed = _place(session, transfer, items, moved.copied)
    whole = moving and moved.removed
    events = [_arrived(transfer, item, *placed[item.uid], whole) for item in items if item.uid in placed]
    if whole:
        here = {uid: item for item in items if (uid := item.uid) in placed}
        session.execute(queries.REMOVE_PLACES, {"epoch_id": context.epoch_id, "uids": list(here)})
        events += compare.remove_places(session, context, [uid for uid in uids if uid not in here], OURS)
    elif moving:
        _left_marked(session, context, uids)
    record(session, events)
    note = MARKED_ONLY if moving and not moved.removed else None
    known = [item.change.id for item in items if item.uid in placed or not target.followed or item.arrived]
    outcomes.end(session, known, CommandState.DONE, note)
    outcomes.told(session, [item.change.id for item in items if item.change.id not in known], note)


def _place(
    session: Session, transfer: _Transfer, items: Sequence[Item], copied: Copied | None
) -> dict[int, tuple[int, list[str]]]:
    """Give messages the places that COPYUID tells, unless the target was renumbered meanwhile. Returns
    new UIDs and flags by old UIDs."""
    target = transfer.target
    if copied is None or not target.followed or target.cursor is None or target.epoch_id is None:
        return {}
    if copied.uidvalidity != target.cursor.uidvalidity:
        return {}
    going = {copied.uids[item.uid]: item for item in items if item.uid in copied.uids}
    stored = compare.stored_uids(session, transfer.context.epoch_id, [item.uid for item in items])
    added = session.execute(
        queries.ADD_PLACES,
        {
            "epoch_id": target.epoch_id,
            "mailbox_id": transfer.context.mailbox_id,
            "uids": list(going),
            "message_ids": [item.change.message_id for item in going.values()],
            "flags": [" ".join(stored.get(item.uid, ())) for item in going.values()],
        },
    )
    new = list(added.scalars())
    passed = Ranges.of((uid, uid) for uid in new)
    session.execute(PASS_OVER, {"passed": passed.dump(), "epoch_id": target.epoch_id, "uids": new})
    return {going[uid].uid: (uid, stored.get(going[uid].uid, [])) for uid in new}


def _arrived(transfer: _Transfer, item: Item, uid: int, flags: list[str], whole: bool) -> NewEvent:
    """``whole``: it left where it was."""
    data = {
        "mailbox": str(transfer.context.mailbox_uid),
        "folder": transfer.target.name,
        "imap_uid": uid,
        "flags": flags,
        "origin": OURS,
    }
    if whole:
        data["left"] = transfer.context.name
    return NewEvent(
        "message.moved" if whole else "message.copied",
        transfer.context.mailbox_id,
        str(item.change.message_uid),
        data,
    )
