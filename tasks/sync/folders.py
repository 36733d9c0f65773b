"""Which folders a mailbox has: what LIST shows against what is stored."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from schema.database import run
from schema.tables.sync import Folder
from tasks.events import NewEvent, record
from tasks.runtime import Runtime
from tasks.sync.ranges import Ranges
from tasks.sync.values import Cursor
from tasks.wire.imap import ListedFolder

VERSION: Final = """concat_ws(' ', m.login, m.folders::text, p.xmin, x.xmin)"""
"""Differs after a change of the login or the wished folders, and after any of the provider or the secret."""

_STORED: Final = """
    f.id, f.uid, f.wire_name, f.name, f.object_id, f.special_use, f.followed, f.selectable, f.attributes,
    f.failures, f.retry_at, f.resets, e.id AS epoch_id, e.history_below, e.uidvalidity, e.uids, e.uidnext,
    e.messages, e.modseq, e.flags_checked_at, e.compared_at, e.modseq_before, e.doubted_at
"""

FOLDERS = text(f"""
    -- The folders that are there, with their current cursors; indexes: folders_present_key,
    -- folder_epochs_current_key.
    SELECT {_STORED} FROM mailwright.folders AS f
    LEFT JOIN mailwright.folder_epochs AS e ON e.folder_id = f.id AND e.state = 'current'
    WHERE f.mailbox_id = :mailbox_id AND f.gone_at IS NULL ORDER BY f.id
""")  # noqa: S608  the columns are ours

OPENING = text(f"""
    -- All that a sync begins with, at least one row. The settings' version is that of the mailbox's row, and
    -- another while an access token is due. Indexes: commands_due, messages_missing, those of FOLDERS.
    SELECT {VERSION} AS version, concat_ws(' ', m.xmin, k.refresh_at <= now()) AS settings, {_STORED},
           EXISTS (
               SELECT 1 FROM mailwright.commands AS c
               WHERE c.mailbox_id = m.id AND c.state IN ('queued', 'told') AND c.due_at <= now()
           ) AS commands,
           EXISTS (
               SELECT 1 FROM mailwright.messages AS g WHERE g.mailbox_id = m.id AND g.state = 'missing'
           ) AS missing
    FROM mailwright.mailboxes AS m
    JOIN mailwright.providers AS p ON p.id = m.provider_id
    LEFT JOIN mailwright.mailbox_secrets AS x ON x.mailbox_id = m.id
    LEFT JOIN mailwright.mailbox_tokens AS k ON k.mailbox_id = m.id
    LEFT JOIN mailwright.folders AS f ON f.mailbox_id = m.id AND f.gone_at IS NULL
    LEFT JOIN mailwright.folder_epochs AS e ON e.folder_id = f.id AND e.state = 'current'
    WHERE m.id = :mailbox_id ORDER BY f.id
""")  # noqa: S608


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
class Opening:
    """What is stored of a mailbox when a sync of it begins.

    ``version`` differs after a change of the login or the wished folders, and after any of the provider or
    the secret; ``settings`` after any of the mailbox, and when its access token is due. ``commands`` are
    due; messages are ``missing``.
    """

    version: str
    settings: str
    folders: tuple[StoredFolder, ...]
    commands: bool
    missing: bool


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
    return [_stored(row) for row in run(session, FOLDERS, {"mailbox_id": mailbox_id})]


def opening_of(runtime: Runtime, mailbox_id: int) -> Opening | None:
    """What a sync of a mailbox begins with; None where it is gone."""
    rows = runtime.db.ask(OPENING, {"mailbox_id": mailbox_id})
    if not rows:
        return None
    return Opening(
        version=rows[0].version,
        settings=rows[0].settings,
        folders=tuple(_stored(row) for row in rows if row.id is not None),
        commands=rows[0].commands,
        missing=rows[0].missing,
    )


def _stored(row: Any) -> StoredFolder:
    return StoredFolder(
        id=row.id,
        uid=row.uid,
        wire_name=bytes(row.wire_name),
        name=row.name,
        object_id=row.object_id,
        special_use=row.special_use,
        followed=row.followed,
        selectable=row.selectable,
        attributes=tuple(row.attributes),
        failures=row.failures,
        retry_at=row.retry_at,
        resets=row.resets,
        epoch_id=row.epoch_id,
        history_below=row.history_below or 1,
        cursor=None if row.epoch_id is None else _cursor(row),
    )


def _cursor(row: Any) -> Cursor:
    """The cursor that an epoch's row holds."""
    return Cursor(
        uidvalidity=row.uidvalidity,
        uids=Ranges.load(row.uids),
        uidnext=row.uidnext,
        messages=row.messages,
        modseq=row.modseq,
        flags_checked_at=row.flags_checked_at,
        compared_at=row.compared_at,
        modseq_before=row.modseq_before,
        doubted_at=row.doubted_at,
    )
