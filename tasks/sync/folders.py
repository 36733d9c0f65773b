"""Which folders a mailbox has: what LIST shows against what is stored."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from schema.tables.sync import EpochState, Folder, FolderEpoch
from tasks.events import NewEvent, record
from tasks.sync.ranges import Ranges
from tasks.sync.values import Cursor
from tasks.wire.imap import ListedFolder

_FIRST = ("\\Inbox", "\\Sent")


@dataclass(frozen=True, slots=True)
class StoredFolder:
    """A folder as stored, with the cursor of its current epoch, if it was ever opened."""

    id: int
    uid: UUID
    wire_name: bytes
    name: str
    object_id: str | None
    special_use: str | None
    followed: bool
    selectable: bool
    attributes: tuple[str, ...]
    failures: int
    retry_at: datetime | None
    resets: int
    epoch_id: int | None
    history_below: int
    cursor: Cursor | None


@dataclass(frozen=True, slots=True)
class Renamed:
    """A folder as stored, and what is listed of it now."""

    folder: StoredFolder
    now: ListedFolder


@dataclass(frozen=True, slots=True)
class FolderChanges:
    """What a listing changes."""

    appeared: tuple[ListedFolder, ...]
    altered: tuple[tuple[StoredFolder, ListedFolder], ...]
    gone: tuple[StoredFolder, ...]


def compare_listing(
    stored: Sequence[StoredFolder], listed: Sequence[ListedFolder], wanted: Collection[str] | None
) -> FolderChanges:
    """Hold LIST against the table. A name twice in the listing counts once. A folder of which only the name
    is left, because it has children, is gone, and the name appeared."""
    seen: dict[bytes, ListedFolder] = {}
    for folder in listed:
        seen.setdefault(folder.wire_name, folder)
    bare = {name for name, folder in seen.items() if not folder.selectable}
    emptied = tuple(folder for folder in stored if folder.epoch_id and folder.wire_name in bare)
    by_name = {folder.wire_name: folder for folder in stored if folder not in emptied}
    return FolderChanges(
        appeared=tuple(folder for name, folder in seen.items() if name not in by_name),
        altered=tuple(
            (by_name[name], folder)
            for name, folder in seen.items()
            if name in by_name and _differs(by_name[name], folder, wanted)
        ),
        gone=(*emptied, *(folder for name, folder in by_name.items() if name not in seen)),
    )


def is_followed(folder: ListedFolder, wanted: Collection[str] | None) -> bool:
    """Every selectable folder of the user's own, or those that the mailbox names; INBOX by any case."""
    if not folder.selectable:
        return False
    if wanted is None:
        return folder.personal
    return folder.name in wanted or (
        folder.name.upper() == "INBOX" and any(name.upper() == "INBOX" for name in wanted)
    )


def sync_order(folder: StoredFolder) -> tuple[bool, int, str]:
    """INBOX first, then Sent, then by name; those that failed lately last, so that they hold up nobody."""
    failed = folder.failures > 0
    if folder.name.upper() == "INBOX":
        return failed, 0, ""
    return failed, (1 if folder.special_use == "\\Sent" else 2), folder.name


def _differs(stored: StoredFolder, listed: ListedFolder, wanted: Collection[str] | None) -> bool:
    return (stored.special_use, stored.selectable, stored.attributes, stored.followed) != (
        listed.special_use,
        listed.selectable,
        tuple(listed.attributes),
        is_followed(listed, wanted),
    )


def apply_listing(
    session: Session,
    mailbox_id: int,
    mailbox_uid: UUID,
    changes: FolderChanges,
    wanted: Collection[str] | None,
) -> None:
    """Write what a listing changed, with its events."""
    events: list[NewEvent] = []

    def told(kind: str, uid: UUID, name: str) -> None:
        events.append(NewEvent(kind, mailbox_id, str(uid), {"mailbox": str(mailbox_uid), "folder": name}))

    for folder in changes.gone:
        told("folder.vanished", folder.uid, folder.name)
        session.execute(
            update(Folder).where(Folder.id == folder.id).values(gone_at=text("now()"), followed=False)
        )
    for listed in changes.appeared:
        uid = session.execute(
            insert(Folder)
            .values(
                mailbox_id=mailbox_id,
                wire_name=listed.wire_name,
                name=listed.name,
                delimiter=listed.delimiter,
                special_use=listed.special_use,
                attributes=list(listed.attributes),
                selectable=listed.selectable,
                followed=is_followed(listed, wanted),
            )
            .returning(Folder.uid)
        ).scalar_one()
        told("folder.appeared", uid, listed.name)
    for stored, listed in changes.altered:
        session.execute(
            update(Folder)
            .where(Folder.id == stored.id)
            .values(
                special_use=listed.special_use,
                attributes=list(listed.attributes),
                selectable=listed.selectable,
                followed=is_followed(listed, wanted),
            )
        )
    record(session, events)


def note_object_id(session: Session, folder: StoredFolder, object_id: str) -> None:
    """Keep the MAILBOXID that the server told of a folder."""
    session.execute(update(Folder).where(Folder.id == folder.id).values(object_id=object_id))


def load_folders(session: Session, mailbox_id: int) -> list[StoredFolder]:
    """The mailbox's folders that are there, with their current cursors."""
    rows = session.execute(
        select(Folder, FolderEpoch)
        .outerjoin(
            FolderEpoch, (FolderEpoch.folder_id == Folder.id) & (FolderEpoch.state == EpochState.CURRENT)
        )
        .where(Folder.mailbox_id == mailbox_id, Folder.gone_at.is_(None))
        .order_by(Folder.id)
    ).all()
    return [_stored(folder, epoch) for folder, epoch in rows]


def _stored(folder: Folder, epoch: FolderEpoch | None) -> StoredFolder:
    return StoredFolder(
        id=folder.id,
        uid=folder.uid,
        wire_name=bytes(folder.wire_name),
        name=folder.name,
        object_id=folder.object_id,
        special_use=folder.special_use,
        followed=folder.followed,
        selectable=folder.selectable,
        attributes=tuple(folder.attributes),
        failures=folder.failures,
        retry_at=folder.retry_at,
        resets=folder.resets,
        epoch_id=epoch.id if epoch else None,
        history_below=epoch.history_below if epoch else 1,
        cursor=load_cursor(epoch) if epoch else None,
    )


def load_cursor(epoch: FolderEpoch) -> Cursor:
    """The cursor that an epoch's row holds."""
    return Cursor(
        uidvalidity=epoch.uidvalidity,
        uids=Ranges.load(epoch.uids),
        uidnext=epoch.uidnext,
        messages=epoch.messages,
        modseq=epoch.modseq,
        flags_checked_at=epoch.flags_checked_at,
        compared_at=epoch.compared_at,
        modseq_before=epoch.modseq_before,
        doubted_at=epoch.doubted_at,
    )


def listing_summary(changes: FolderChanges) -> Mapping[str, int]:
    """Counts for the log."""
    return {"appeared": len(changes.appeared), "altered": len(changes.altered), "gone": len(changes.gone)}
