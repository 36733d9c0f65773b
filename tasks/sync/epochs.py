"""The lives of a folder: its first opening, and what a new UIDVALIDITY asks for.

A renumbered folder gets a new epoch, built in batches beside the old: what can be matched by size and
Message-ID keeps its message and needs no body; then one small transaction switches over, says
``folder.reset`` and what changed meanwhile, and leaves the rest as holes, which are fetched and matched by
digest.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from schema.database import raw
from schema.tables.sync import EpochState, Folder, FolderEpoch
from tasks.events import NewEvent, record
from tasks.sync.commands import origins
from tasks.sync.fetch import FIRST_WINDOW, LAST_WINDOW, SPARSE
from tasks.sync.folders import StoredFolder
from tasks.sync.ranges import LAST_UID, Ranges
from tasks.sync.store import FolderContext
from tasks.sync.values import Seen
from tasks.sync.work import Work
from tasks.wire import mime
from tasks.wire.imap import CommandRefused

RESETS_IN_A_ROW = 5

MATCHES = text("""
    -- Messages of the old epoch with these Message-IDs that the new one has not placed yet.
    SELECT DISTINCT m.id, m.message_id, m.size FROM mailwright.messages AS m
    JOIN mailwright.places AS p ON p.message_id = m.id AND p.epoch_id = :old
    WHERE m.mailbox_id = :mailbox_id AND m.message_id = ANY(:message_ids)
      AND NOT EXISTS (SELECT 1 FROM mailwright.places AS n WHERE n.message_id = m.id AND n.epoch_id = :new)
    ORDER BY m.id
""")

LOST_BY_SWITCH = text("""
    -- Missing since the very moment at which the new epoch begins: so is told who was only renumbered.
    UPDATE mailwright.messages AS m SET state = 'missing', missing_since = now()
    WHERE m.id IN (SELECT message_id FROM mailwright.places WHERE epoch_id = :old) AND m.state = 'present'
      AND NOT EXISTS (
        SELECT 1 FROM mailwright.places AS p
        JOIN mailwright.folder_epochs AS e ON e.id = p.epoch_id AND e.state = 'current'
        JOIN mailwright.folders AS f ON f.id = e.folder_id AND f.gone_at IS NULL
        WHERE p.message_id = m.id
      )
""")

CHANGED_BY_SWITCH = text("""
    -- Messages of the old epoch that have other flags in the new one (``imap_uid`` is theirs there), or are
    -- not in it any more and lie elsewhere (``imap_uid`` is NULL).
    SELECT m.id, m.uid, n.imap_uid, n.flags FROM mailwright.places AS o
    JOIN mailwright.messages AS m ON m.id = o.message_id AND m.state = 'present'
    LEFT JOIN mailwright.places AS n ON n.epoch_id = :new AND n.message_id = o.message_id
    WHERE o.epoch_id = :old AND n.flags IS DISTINCT FROM o.flags ORDER BY o.imap_uid
""")

LOST_BY_VANISHING = text("""
    -- Messages whose only places were in folders that are gone, or not followed any more.
    UPDATE mailwright.messages AS m SET state = 'missing', missing_since = clock_timestamp()
    WHERE m.id IN (
        SELECT p.message_id FROM mailwright.places AS p
        JOIN mailwright.folder_epochs AS e ON e.id = p.epoch_id
        WHERE e.folder_id = ANY(:folders)
    ) AND m.state = 'present' AND NOT EXISTS (
        SELECT 1 FROM mailwright.places AS p
        JOIN mailwright.folder_epochs AS e ON e.id = p.epoch_id AND e.state = 'current'
        JOIN mailwright.folders AS f ON f.id = e.folder_id AND f.gone_at IS NULL
        WHERE p.message_id = m.id
    )
""")


def open_epoch(session: Session, mailbox_id: int, folder: StoredFolder, seen: Seen, top: int) -> None:
    """Give a folder its first epoch; ``top`` is its highest UID now, and all up to it is history."""
    session.add(
        FolderEpoch(
            mailbox_id=mailbox_id,
            folder_id=folder.id,
            state=EpochState.CURRENT,
            uidvalidity=seen.uidvalidity,
            modseq=seen.highestmodseq,
            uidnext=None,
            messages=0,
            history_below=top + 1,
            compared_at=func.now(),
        )
    )
    session.flush()


def rebuild(work: Work, folder: StoredFolder, context: FolderContext, seen: Seen, top: int) -> None:
    """Build the epoch of a new UIDVALIDITY beside the old one and switch to it."""
    old = context.epoch_id
    new = work.commit(lambda session: _begin_building(session, context, seen, top))
    left = Ranges(((1, top),)) if top else Ranges()
    width = FIRST_WINDOW
    unmatched: list[tuple[int, int]] = []
    while (window := left.highest(width)) is not None:
        outlines = {
            outline.uid: outline
            for outline in work.imap.outlines([window])
            if window[0] <= outline.uid <= window[1]
        }
        width = min(LAST_WINDOW, width * 4) if len(outlines) < SPARSE else FIRST_WINDOW
        uids = sorted(outlines)
        for start in range(0, len(uids), 500):
            part = uids[start : start + 500]
            names = _message_ids(work, part)
            found = [(uid, names.get(uid), outlines[uid].size, outlines[uid].flags) for uid in part]
            placed = work.commit(partial(_place_known, context=context, old=old, new=new, found=found))
            unmatched.extend((uid, uid) for uid in part if uid not in placed)
        left = left.remove(*window)
        work.progress()
    passed = Ranges(((1, top),)) if top else Ranges()
    for span in Ranges.of(unmatched):
        passed = passed.remove(*span)
    work.commit(lambda session: _switch(session, folder, context, seen, new, passed))


def highest_uid(work: Work, seen: Seen, above: int) -> int:
    """The folder's highest UID; asked for where the server leaves UIDNEXT out."""
    if seen.uidnext is not None:
        return seen.uidnext - 1
    if not seen.messages:
        return above
    return max((s.uid for s in work.imap.flags([(above + 1, LAST_UID)])), default=above)


def end(session: Session, epoch_id: int) -> None:
    """Forget an epoch that has no place left, and its cursor."""
    session.execute(delete(FolderEpoch).where(FolderEpoch.id == epoch_id))


def lose_folders(session: Session, folders: Sequence[int]) -> None:
    """The messages of vanished folders are missing unless they lie elsewhere."""
    if folders:
        session.execute(LOST_BY_VANISHING, {"folders": list(folders)})


def _begin_building(session: Session, context: FolderContext, seen: Seen, top: int) -> int:
    session.execute(
        delete(FolderEpoch).where(
            FolderEpoch.folder_id == context.folder_id, FolderEpoch.state == EpochState.BUILDING
        )
    )
    epoch = FolderEpoch(
        mailbox_id=context.mailbox_id,
        folder_id=context.folder_id,
        state=EpochState.BUILDING,
        uidvalidity=seen.uidvalidity,
        modseq=seen.highestmodseq,
        history_below=top + 1,
        compared_at=func.now(),
    )
    session.add(epoch)
    session.flush()
    return epoch.id


def _message_ids(work: Work, uids: Sequence[int]) -> dict[int, str]:
    """Message-IDs, as far as they can be had: a message without is fetched whole and known by its bytes."""
    names: dict[int, str] = {}
    if work.careful:
        return names  # the try before may have died of one of these headers
    limit = work.runtime.settings.max_message_bytes
    try:
        for fetched in work.imap.fetch(uids, max_bytes=limit, headers_only=True):
            if fetched.body is not None:
                name = mime.read(fetched.body).message_id
                if name is not None:
                    names[fetched.uid] = name
            work.progress()
    except CommandRefused:
        if work.imap.condstore and not names:
            raise  # it may be MODSEQ that is refused (IONOS)
    return names


def _place_known(
    session: Session,
    context: FolderContext,
    old: int,
    new: int,
    found: Sequence[tuple[int, str | None, int | None, tuple[str, ...]]],
) -> set[int]:
    """Place what matches by Message-ID and size, each stored message once."""
    rows = session.execute(
        MATCHES,
        {
            "mailbox_id": context.mailbox_id,
            "old": old,
            "new": new,
            "message_ids": [name for _, name, _, _ in found if name],
        },
    )
    free: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for row in rows:
        free[row.message_id, row.size].append(row.id)
    placed: set[int] = set()
    with (
        raw(session).cursor() as cursor,
        cursor.copy(
            "COPY mailwright.places (epoch_id, imap_uid, mailbox_id, message_id, flags) FROM STDIN"
        ) as copy,
    ):
        for uid, name, size, flags in found:
            if name and size is not None and free[name, size]:
                copy.write_row((new, uid, context.mailbox_id, free[name, size].pop(0), list(flags)))
                placed.add(uid)
    return placed


def _switch(
    session: Session, folder: StoredFolder, context: FolderContext, seen: Seen, new: int, passed: Ranges
) -> None:
    old = context.epoch_id
    session.execute(update(FolderEpoch).where(FolderEpoch.id == old).values(state=EpochState.RETIRED))
    session.execute(
        update(FolderEpoch)
        .where(FolderEpoch.id == new)
        .values(state=EpochState.CURRENT, uids=passed.dump(), messages=0, created_at=func.now())
    )
    session.execute(update(Folder).where(Folder.id == folder.id).values(resets=Folder.resets + 1))
    session.execute(LOST_BY_SWITCH, {"old": old})
    matched = session.execute(
        select(func.count()).select_from(text("mailwright.places")).where(text("epoch_id = :new")),
        {"new": new},
    ).scalar_one()
    record(
        session,
        [
            NewEvent(
                "folder.reset",
                context.mailbox_id,
                str(context.folder_uid),
                {
                    "mailbox": str(context.mailbox_uid),
                    "folder": context.name,
                    "uidvalidity": seen.uidvalidity,
                    "matched": matched,
                },
            ),
            *_changed_by_switch(session, context, old, new),
        ],
    )


def _changed_by_switch(session: Session, context: FolderContext, old: int, new: int) -> list[NewEvent]:
    """Events of what changed besides the numbers: flags, and messages that lie elsewhere only, now."""
    rows = session.execute(CHANGED_BY_SWITCH, {"old": old, "new": new}).all()
    left = origins.of_leaving(session, [row.id for row in rows if row.imap_uid is None])
    marked = origins.of_flags(session, {row.id: row.flags for row in rows if row.imap_uid is not None})
    events = []
    for row in rows:
        data: dict[str, object] = {"mailbox": str(context.mailbox_uid)}
        if row.imap_uid is None:
            kind = "message.moved"
            data |= {"left": context.name, "origin": left[row.id]}
        else:
            kind = "message.flags_changed"
            data |= {"folder": context.name, "imap_uid": row.imap_uid, "flags": list(row.flags)}
            data |= {"origin": marked[row.id]}
        events.append(NewEvent(kind, context.mailbox_id, str(row.uid), data))
    return events
