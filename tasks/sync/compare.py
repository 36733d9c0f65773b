"""Holding stored places against the server's: flags that changed, UIDs that are gone.

Both sides are read in windows of UIDs, so memory does not grow with the folder.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from schema.database import run
from tasks.events import NewEvent, record
from tasks.sync.commands import origins
from tasks.sync.ranges import Ranges
from tasks.sync.store import FolderContext
from tasks.wire.imap import SeenFlags

STORED_WINDOW = text("""
    -- The stored places of one window of UIDs; index: the primary key.
    SELECT imap_uid, flags FROM mailwright.places
    WHERE epoch_id = :epoch_id AND imap_uid BETWEEN :low AND :high
""")

STORED_UIDS = text("""
    SELECT imap_uid, flags FROM mailwright.places WHERE epoch_id = :epoch_id AND imap_uid = ANY(:uids)
""")

STORED_SPANS = text("""
    -- Stored UIDs in ranges of them; index: the primary key, once a range.
    SELECT p.imap_uid FROM unnest(cast(:lows AS bigint[]), cast(:highs AS bigint[])) AS s (low, high)
    JOIN mailwright.places AS p ON p.epoch_id = :epoch_id AND p.imap_uid BETWEEN s.low AND s.high
    ORDER BY p.imap_uid
""")

WINDOWS = text("""
    -- The lowest UIDs of windows of :size stored places, newest first.
    SELECT min(imap_uid) AS low FROM (
        SELECT imap_uid, (row_number() OVER (ORDER BY imap_uid DESC) - 1) / :size AS part
        FROM mailwright.places WHERE epoch_id = :epoch_id
    ) AS numbered GROUP BY part ORDER BY part
""")

OPEN_HOLES = text("""
    UPDATE mailwright.folder_epochs SET uids = uids - cast(:found AS int8multirange) WHERE id = :epoch_id
""")

NEWEST = text("""
    SELECT imap_uid FROM mailwright.places WHERE epoch_id = :epoch_id ORDER BY imap_uid DESC LIMIT :count
""")

COUNT = text("""
    SELECT count(*) FROM mailwright.places WHERE epoch_id = :epoch_id AND imap_uid >= :first
""")

SET_FLAGS = text("""
    -- Flags that are not as stored, whatever their order, with the messages that have them; index: the
    -- primary key.
    WITH changed AS (
        UPDATE mailwright.places AS p
        SET flags = seen.flags, modseq = coalesce(seen.modseq, p.modseq)
        FROM (
            SELECT uid, string_to_array(flags, ' ') AS flags, modseq
            FROM unnest(cast(:uids AS bigint[]), cast(:flags AS text[]), cast(:modseqs AS bigint[]))
                 AS told (uid, flags, modseq)
        ) AS seen
        WHERE p.epoch_id = :epoch_id AND p.imap_uid = seen.uid
          AND NOT (p.flags @> seen.flags AND p.flags <@ seen.flags)
        RETURNING p.imap_uid, p.message_id, p.flags
    )
    SELECT c.imap_uid, c.message_id, c.flags, m.uid FROM changed AS c
    LEFT JOIN mailwright.messages AS m ON m.id = c.message_id
""")

REMOVE = text("""
    -- The count that the next look reckons from falls with them, for this look may end half-way.
    WITH removed AS (
        DELETE FROM mailwright.places WHERE epoch_id = :epoch_id AND imap_uid = ANY(:uids)
        RETURNING message_id
    ), counted AS (
        UPDATE mailwright.folder_epochs
        SET messages = greatest(0, messages - (SELECT count(*) FROM removed)) WHERE id = :epoch_id
    )
    SELECT message_id FROM removed
""")

LEFT_WITHOUT_PLACE = text("""
    -- Of these messages, those in no folder epoch that is current any more are missing from now on.
    UPDATE mailwright.messages AS m SET state = 'missing', missing_since = clock_timestamp()
    WHERE m.id = ANY(:ids) AND m.state = 'present' AND NOT EXISTS (
        SELECT 1 FROM mailwright.places AS p
        JOIN mailwright.folder_epochs AS e ON e.id = p.epoch_id AND e.state = 'current'
        JOIN mailwright.folders AS f ON f.id = e.folder_id AND f.gone_at IS NULL
        WHERE p.message_id = m.id
    )
    RETURNING m.id
""")

UID_OF = text("SELECT id, uid FROM mailwright.messages WHERE id = ANY(:ids)")


@dataclass(frozen=True, slots=True)
class Difference:
    """What the server shows that the table does not. ``changed`` may be as stored, or about no place."""

    changed: tuple[SeenFlags, ...]
    gone: tuple[int, ...]


def difference(stored: Mapping[int, Sequence[str]], seen: Iterable[SeenFlags]) -> Difference:
    """Compare one window, of which the server showed every UID it has there: what it did not show is gone.
    UIDs that are not stored are new mail and none of this function's business. What was told last of a UID
    holds."""
    last = {item.uid: item for item in seen}
    changed = (
        item
        for uid, item in last.items()
        if uid in stored and item.flags is not None and item.flags != tuple(sorted(stored[uid]))
    )
    return Difference(tuple(changed), tuple(uid for uid in stored if uid not in last))


def stored_window(session: Session, epoch_id: int, low: int, high: int) -> dict[int, list[str]]:
    """The stored flags of one window."""
    rows = session.execute(STORED_WINDOW, {"epoch_id": epoch_id, "low": low, "high": high})
    return {row.imap_uid: row.flags for row in rows}


def stored_uids(session: Session, epoch_id: int, uids: Sequence[int]) -> dict[int, list[str]]:
    """The stored flags of given UIDs."""
    rows = session.execute(STORED_UIDS, {"epoch_id": epoch_id, "uids": list(uids)})
    return {row.imap_uid: row.flags for row in rows}


def stored_spans(session: Session, epoch_id: int, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The stored UIDs within ranges, ascending."""
    lows, highs = [low for low, _ in spans], [high for _, high in spans]
    rows = session.execute(STORED_SPANS, {"epoch_id": epoch_id, "lows": lows, "highs": highs})
    return list(rows.scalars())


def windows(session: Session, epoch_id: int, size: int, last: int) -> list[tuple[int, int]]:
    """``1..last``, at least as far as places are stored, in windows of ``size`` of those, newest first."""
    lows = list(session.execute(WINDOWS, {"epoch_id": epoch_id, "size": size}).scalars())
    highest = newest(session, epoch_id, 1)
    tops = [max(last, *highest), *(low - 1 for low in lows[:-1])] if highest else [last]
    return [(low, high) for low, high in zip([*lows[:-1], 1], tops, strict=True) if low <= high]


def open_holes(session: Session, epoch_id: int, found: Ranges) -> None:
    """Let UIDs be fetched that were passed over."""
    session.execute(OPEN_HOLES, {"epoch_id": epoch_id, "found": found.dump()})


def newest(session: Session, epoch_id: int, count: int) -> list[int]:
    """The highest stored UIDs."""
    return list(session.execute(NEWEST, {"epoch_id": epoch_id, "count": count}).scalars())


def count_places(session: Session, epoch_id: int, first: int = 1) -> int:
    """How many places the epoch has from a UID on, stubs among them."""
    return int(session.execute(COUNT, {"epoch_id": epoch_id, "first": first}).scalar_one())


def apply_difference(
    session: Session, folder: FolderContext, found: Difference, origin: str | None = None
) -> int:
    """Write a difference, with its events; returns how many places got other flags. ``origin`` is who caused
    it, where that is known."""
    changed = _set_flags(session, folder, found.changed) if found.changed else []
    flags = {row.message_id: row.flags for row in changed if row.message_id is not None}
    caused = dict.fromkeys(flags, origin) if origin else origins.of_flags(session, flags)
    events = [
        NewEvent(
            "message.flags_changed",
            folder.mailbox_id,
            str(row.uid),
            {
                "mailbox": str(folder.mailbox_uid),
                "folder": folder.name,
                "imap_uid": row.imap_uid,
                "flags": row.flags,
                "origin": caused[row.message_id],
            },
        )
        for row in changed
        if row.message_id is not None
    ]
    if found.gone:
        events.extend(remove_places(session, folder, found.gone))
    record(session, events)
    return len(changed)


def _set_flags(session: Session, folder: FolderContext, seen: Sequence[SeenFlags]) -> Sequence[Any]:
    told = {item.uid: item for item in seen if item.flags is not None}.values()
    return run(
        session,
        SET_FLAGS,
        {
            "epoch_id": folder.epoch_id,
            "uids": [item.uid for item in told],
            "flags": [" ".join(item.flags or ()) for item in told],
            "modseqs": [item.modseq for item in told],
        },
    )


def remove_places(
    session: Session, folder: FolderContext, uids: Sequence[int], origin: str | None = None
) -> list[NewEvent]:
    """Take places away. A message left in another folder was moved there; one left nowhere is missing
    until every folder was looked at again."""
    removed = session.execute(REMOVE, {"epoch_id": folder.epoch_id, "uids": list(uids)})
    ids = [row.message_id for row in removed if row.message_id is not None]
    missing = set(session.execute(LEFT_WITHOUT_PLACE, {"ids": ids}).scalars())
    elsewhere = [message_id for message_id in ids if message_id not in missing]
    names = _uids_of(session, elsewhere)
    caused = dict.fromkeys(elsewhere, origin) if origin else origins.of_leaving(session, elsewhere)
    return [
        NewEvent(
            "message.moved",
            folder.mailbox_id,
            names[message_id],
            {"mailbox": str(folder.mailbox_uid), "left": folder.name, "origin": caused[message_id]},
        )
        for message_id in elsewhere
    ]


def _uids_of(session: Session, ids: Sequence[int]) -> dict[int, str]:
    if not ids:
        return {}
    return {row.id: str(row.uid) for row in session.execute(UID_OF, {"ids": list(ids)})}
