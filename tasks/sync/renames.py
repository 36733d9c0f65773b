"""Folders that have another name now, recognised so that nothing of them is fetched again.

    a name that LIST did not show before ──open──> MAILBOXID, UIDVALIDITY, UIDNEXT
            whose it can be, and whose name is free or another's now
                    ──headers of its newest messages──> the same UIDs, Message-IDs and dates ──> renamed

A name proves nothing: it may be used again for other mail, and UIDVALIDITY may repeat. What cannot be proved
is a folder that vanished and one that appeared; its messages are known again by their bytes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import text, update
from sqlalchemy.orm import Session

from schema.tables.sync import Folder, FolderEpoch
from tasks.events import NewEvent, record
from tasks.sync.folders import Renamed, StoredFolder, is_followed, load_folders
from tasks.sync.work import Work
from tasks.wire import mime
from tasks.wire.imap import CommandRefused, FolderUnavailable, ListedFolder, Selected

EVIDENCE: Final = 100
"""Messages of a folder that are held against those stored."""

NEWEST = text("""
    -- By what the newest messages of an epoch are known; indexes: the primary keys.
    SELECT p.imap_uid, m.message_id, m.internal_at FROM mailwright.places AS p
    JOIN mailwright.messages AS m ON m.id = p.message_id
    WHERE p.epoch_id = :epoch_id ORDER BY p.imap_uid DESC LIMIT :count
""")

Known = tuple[str | None, datetime | None]
"""Message-ID and INTERNALDATE."""


def recognise(work: Work, stored: Sequence[StoredFolder], listed: Sequence[ListedFolder]) -> list[Renamed]:
    """Which folders were renamed, in an order in which the name that one takes is free by then."""
    found: list[Renamed] = []
    if work.suspicious:
        return found  # the try before may have died of a header
    opened: dict[bytes, Selected | None] = {}
    while (renamed := _next(work, stored, listed, opened)) is not None:
        found.append(renamed)
        stored = [_under(renamed) if each is renamed.folder else each for each in stored]
    return found


def apply_renames(session: Session, work: Work, renamed: Sequence[Renamed]) -> list[StoredFolder]:
    """Write the new names, with their events; everything in these folders is compared once. Returns all
    folders as they are stored then."""
    for each in renamed:
        session.execute(
            update(Folder)
            .where(Folder.id == each.folder.id)
            .values(wire_name=each.now.wire_name, name=each.now.name, delimiter=each.now.delimiter)
        )
        session.execute(
            update(FolderEpoch).where(FolderEpoch.id == each.folder.epoch_id).values(compared_at=None)
        )
    mailbox = str(work.route.uid)
    record(
        session,
        [
            NewEvent(
                "folder.renamed",
                work.route.mailbox_id,
                str(each.folder.uid),
                {"mailbox": mailbox, "folder": each.now.name, "was": each.folder.name},
            )
            for each in renamed
        ],
    )
    return load_folders(session, work.route.mailbox_id)


def may_be(folder: StoredFolder, shown: Selected) -> bool:
    """Whether what the server opened can be this folder. A MAILBOXID is never another's (RFC 8474 §4); else
    UIDVALIDITY stays, and UIDNEXT does not fall (RFC 9051 §2.3.1.1)."""
    cursor = folder.cursor
    if cursor is None:
        return False
    if folder.object_id is not None and shown.object_id is not None:
        return folder.object_id == shown.object_id
    grown = cursor.uidnext is None or shown.uidnext is None or shown.uidnext >= cursor.uidnext
    return shown.uidvalidity == cursor.uidvalidity and grown


def agree(stored: Mapping[int, Known], shown: Mapping[int, Known]) -> bool:
    """Whether messages of the same UIDs are the same, as far as they are there still: one at least."""
    both = stored.keys() & shown.keys()
    return all(stored[uid] == shown[uid] for uid in both) and any(stored[uid] != (None, None) for uid in both)


def _next(
    work: Work,
    stored: Sequence[StoredFolder],
    listed: Sequence[ListedFolder],
    opened: dict[bytes, Selected | None],
) -> Renamed | None:
    names = {folder.wire_name for folder in listed if folder.selectable}
    known = {folder.wire_name for folder in stored}
    if all(folder.cursor is None for folder in stored):
        return None
    for now in listed:
        if now.wire_name in known or not is_followed(now, work.route.folders):
            continue
        shown = _open(work, now.wire_name, opened)
        if shown is None:
            continue
        candidates = [
            folder for folder in stored if may_be(folder, shown) and _has_left(work, folder, names, opened)
        ]
        for folder in candidates:
            if _proved(work, folder, now, shown, alone=len(candidates) == 1):
                return Renamed(folder, now)
    return None


def _has_left(
    work: Work, folder: StoredFolder, names: Collection[bytes], opened: dict[bytes, Selected | None]
) -> bool:
    """Whether its name is free, or another folder's by now."""
    if folder.wire_name not in names:
        return True
    shown = _open(work, folder.wire_name, opened)
    return shown is not None and not may_be(folder, shown)


def _open(work: Work, wire_name: bytes, opened: dict[bytes, Selected | None]) -> Selected | None:
    if wire_name not in opened:
        try:
            opened[wire_name] = work.imap.select(wire_name)
        except (FolderUnavailable, CommandRefused):
            opened[wire_name] = None
        work.progress()
    return opened[wire_name]


def _proved(work: Work, folder: StoredFolder, now: ListedFolder, shown: Selected, *, alone: bool) -> bool:
    """A renumbered folder with the same MAILBOXID is matched message by message later; of an empty one
    nothing can be mistaken."""
    assert folder.cursor is not None
    if folder.cursor.uidvalidity != shown.uidvalidity:
        return True
    with work.reading() as session:
        rows = session.execute(NEWEST, {"epoch_id": folder.epoch_id, "count": EVIDENCE})
        stored = {row.imap_uid: (row.message_id, row.internal_at) for row in rows}
    if not stored:
        return alone and shown.messages == 0
    limit = work.runtime.settings.max_message_bytes
    try:
        work.imap.select(now.wire_name)
        there = {
            each.uid: (mime.read(each.body).message_id, each.internal_at)
            for each in work.imap.fetch(sorted(stored), max_bytes=limit, headers_only=True)
            if each.body is not None
        }
    except (FolderUnavailable, CommandRefused):
        return False
    work.progress()
    return agree(stored, there)


def _under(renamed: Renamed) -> StoredFolder:
    return replace(renamed.folder, wire_name=renamed.now.wire_name, name=renamed.now.name)
