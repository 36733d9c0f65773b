"""Three accounts of one mailbox, which at rest must be one: the server's files, Postgres, the events.

files ──(folder, UIDVALIDITY, UID, bytes, flags)── Postgres ──(message, folder, UID, flags)── events
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from lab.replay import Replayed, Told
from lab.servers.uidlist import FiledFolder

Rows = Callable[..., list[Any]]
"""Asks the database: a statement and its parameters."""

MOST_SHOWN: Final = 12
"""Differences of one kind that are spelled out."""

FOLDERS = """
    SELECT f.name, f.uid::text AS uid, e.uidvalidity FROM mailwright.folders f
    LEFT JOIN mailwright.folder_epochs e ON e.folder_id = f.id AND e.state = 'current'
    WHERE f.mailbox_id = :mailbox AND f.gone_at IS NULL
"""

PLACES = """
    SELECT f.name AS folder, p.imap_uid, p.flags, m.uid::text AS message, m.state,
           encode(sha256(r.raw), 'hex') AS digest, coalesce(p.stub, '') AS stub
    FROM mailwright.places p
    JOIN mailwright.folder_epochs e ON e.id = p.epoch_id AND e.state = 'current'
    JOIN mailwright.folders f ON f.id = e.folder_id AND f.gone_at IS NULL
    LEFT JOIN mailwright.messages m ON m.id = p.message_id
    LEFT JOIN mailwright.raw_messages r ON r.message_id = p.message_id
    WHERE p.mailbox_id = :mailbox
"""

MESSAGES = """
    SELECT uid::text AS uid, state FROM mailwright.messages WHERE mailbox_id = :mailbox
"""

EVENTS = """
    SELECT type, subject, data FROM (
        SELECT position, 0 AS id, type, subject, data FROM mailwright.events WHERE mailbox_id = :mailbox
        UNION ALL
        SELECT NULL, id, type, subject, data FROM mailwright.events_pending WHERE mailbox_id = :mailbox
    ) AS told ORDER BY position NULLS LAST, id
"""


@dataclass(frozen=True, slots=True)
class StoredPlace:
    """A place as Postgres has it. ``message`` is None for a stub."""

    message: str | None
    state: str | None
    digest: str | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredBox:
    """A mailbox as Postgres has it. ``folders`` gives ids, ``validities`` UIDVALIDITY of those opened, by
    name; ``messages`` states by id."""

    folders: Mapping[str, str]
    validities: Mapping[str, int]
    places: Mapping[tuple[str, int], StoredPlace]
    messages: Mapping[str, str]


def load(rows: Rows, mailbox: int) -> StoredBox:
    """Read a mailbox by its inner id."""
    folders = rows(FOLDERS, mailbox=mailbox)
    places = rows(PLACES, mailbox=mailbox)
    return StoredBox(
        folders={row.name: row.uid for row in folders},
        validities={row.name: row.uidvalidity for row in folders if row.uidvalidity is not None},
        places={
            (row.folder, row.imap_uid): StoredPlace(
                row.message, row.state, row.digest or row.stub, tuple(row.flags)
            )
            for row in places
        },
        messages={row.uid: row.state for row in rows(MESSAGES, mailbox=mailbox)},
    )


def events(rows: Rows, mailbox: int) -> list[Told]:
    """Every event of a mailbox, in order."""
    return [Told(row.type, row.subject, row.data) for row in rows(EVENTS, mailbox=mailbox)]


def against_server(stored: StoredBox, filed: Mapping[str, FiledFolder]) -> list[str]:
    """How Postgres differs from the server's files, a line each."""
    return [*_some("folder", _folders(stored, filed)), *_some("place", _places(stored, filed))]


def against_events(stored: StoredBox, replayed: Replayed) -> list[str]:
    """How Postgres differs from the events, a line each."""
    return [
        *_some("folder by events", _told_folders(stored, replayed)),
        *_some("message by events", _told_messages(stored, replayed)),
    ]


def _folders(stored: StoredBox, filed: Mapping[str, FiledFolder]) -> Iterator[str]:
    for name in sorted({*stored.validities, *filed}):
        ours = stored.validities.get(name)
        theirs = filed[name].uidvalidity if name in filed else None
        if (name in stored.validities) != (name in filed) or (theirs is not None and ours != theirs):
            yield f"{name!r}: stored with UIDVALIDITY {ours}, on the server {name in filed} with {theirs}"
        if name in filed and filed[name].unnumbered:
            yield f"{name!r}: {filed[name].unnumbered} files that no session looked at"


def _places(stored: StoredBox, filed: Mapping[str, FiledFolder]) -> Iterator[str]:
    theirs = {(name, uid): mail for name, folder in filed.items() for uid, mail in folder.messages.items()}
    for at in sorted({*theirs, *stored.places}):
        place, mail = stored.places.get(at), theirs.get(at)
        if place is None:
            assert mail is not None
            yield f"{at}: on the server ({mail.digest[:8]} {mail.flags}), not stored"
        elif mail is None:
            yield f"{at}: stored (message {place.message}, {place.state}), not on the server"
        elif (place.digest, place.flags) != (mail.digest, mail.flags):
            ours = f"{(place.digest or '')[:8]} {place.flags}"
            yield f"{at}: stored as {ours}, on the server {mail.digest[:8]} {mail.flags}"
        elif place.state != "present":
            yield f"{at}: message {place.message} is {place.state}"
    placed = {place.message for place in stored.places.values()}
    for message, state in stored.messages.items():
        if state != "deleted" and message not in placed:
            yield f"message {message} is {state} and lies nowhere"


def _told_folders(stored: StoredBox, replayed: Replayed) -> Iterator[str]:
    for name in sorted({*stored.folders, *replayed.folders}):
        if stored.folders.get(name) != replayed.folders.get(name):
            yield f"{name!r}: stored as {stored.folders.get(name)}, told as {replayed.folders.get(name)}"


def _told_messages(stored: StoredBox, replayed: Replayed) -> Iterator[str]:
    ours: dict[str, dict[str, tuple[int, tuple[str, ...]]]] = {
        message: {} for message, state in stored.messages.items() if state != "deleted"
    }
    for (folder, uid), place in stored.places.items():
        if place.message is not None:
            ours.setdefault(place.message, {})[folder] = (uid, place.flags)
    for message in sorted({*ours, *replayed.messages}):
        told = replayed.messages.get(message)
        if told is None:
            yield f"{message}: stored in {ours[message]}, by the events not there"
        elif message not in ours:
            yield f"{message}: by the events in {told}, not stored"
        else:
            agreed = {
                folder: (lies.imap_uid or ours[message].get(folder, (None,))[0], lies.flags)
                for folder, lies in told.items()
            }
            if agreed != ours[message]:
                yield f"{message}: stored in {ours[message]}, by the events in {told}"


def _some(what: str, lines: Iterator[str]) -> list[str]:
    shown = [f"{what} {line}" for line in islice(lines, MOST_SHOWN)]
    left = sum(1 for _ in lines)
    return [*shown, f"… and {left} more of {what}"] if left else shown
