"""What is read while commands are under way: what the server says, overlaid with what was wished for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from schema.tables.sync import CommandKind
from tasks.sync.commands import queries
from tasks.sync.commands.values import wished


@dataclass(frozen=True, slots=True)
class Shown:
    """A place as it is shown. ``lies``: the folder where the server has it (of a copy that is not made
    yet, the one it is made from). ``uid`` is None and ``pending`` true for a place only wished for."""

    folder_id: int
    folder: str
    lies: int
    uid: int | None
    flags: tuple[str, ...]
    pending: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """An open command, as far as it shows."""

    kind: CommandKind
    folder_id: int
    target_id: int | None = None
    target: str | None = None
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


def overlay(places: Sequence[Shown], wishes: Iterable[Wish]) -> list[Shown]:
    """Places as they will be, if all goes well. A wish that was carried out already changes nothing."""
    shown = list(places)
    for wish in wishes:
        about = [place for place in shown if place.lies == wish.folder_id]
        if not about and len(shown) == 1:
            about = shown[:]
        arrived = any(place.folder_id == wish.target_id for place in shown)
        match wish.kind:
            case CommandKind.MARK:
                shown = [
                    replace(place, flags=wished(place.flags, wish.add, wish.remove), pending=True)
                    if place in about
                    else place
                    for place in shown
                ]
            case CommandKind.DELETE:
                shown = [place for place in shown if place not in about]
            case CommandKind.MOVE if not shown and wish.target_id is not None:  # it is on its way
                shown = [Shown(wish.target_id, wish.target or "", wish.folder_id, None, (), pending=True)]
            case CommandKind.MOVE if not arrived:
                shown = [_at(place, wish) if place in about else place for place in shown]
            case CommandKind.COPY if not arrived:
                shown += [_at(place, wish) for place in about[:1]]
            case _:
                pass
    return shown


def _at(place: Shown, wish: Wish) -> Shown:
    assert wish.target_id is not None
    return replace(
        place, folder_id=wish.target_id, folder=wish.target or place.folder, uid=None, pending=True
    )


def shown_places(session: Session, message_ids: Sequence[int]) -> dict[int, list[Shown]]:
    """The places of messages as they are to be shown."""
    wishes = open_wishes(session, message_ids)
    places: dict[int, list[Shown]] = {message_id: [] for message_id in message_ids}
    for row in session.execute(queries.PLACES, {"message_ids": list(message_ids)}):
        place = Shown(row.folder_id, row.folder, row.folder_id, row.uid, tuple(row.flags))
        places[row.message_id].append(place)
    return {key: overlay(found, wishes.get(key, ())) for key, found in places.items()}


def open_wishes(session: Session, message_ids: Sequence[int]) -> dict[int, list[Wish]]:
    """Commands about these messages that have not ended, in their order."""
    found: dict[int, list[Wish]] = {}
    for row in session.execute(queries.OPEN, {"message_ids": list(message_ids)}):
        found.setdefault(row.message_id, []).append(_wish(row))
    return found


def _wish(row: Any) -> Wish:
    return Wish(
        CommandKind(row.kind),
        row.folder_id,
        row.target_id,
        row.target,
        tuple(row.add_flags),
        tuple(row.remove_flags),
    )


def overlaid_rows(session: Session, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a list of messages (``id``, ``folders``, ``flags`` as one text) as they are to be shown;
    without those that are about to be deleted."""
    found = [dict(row) for row in rows]
    wishes = open_wishes(session, [row["id"] for row in found])
    places = shown_places(session, list(wishes)) if wishes else {}
    for row in found:
        here = places.get(row["id"])
        if here:
            row["folders"] = sorted({place.folder for place in here})
            row["flags"] = max(" ".join(place.flags) for place in here)
    deleted = {
        message_id
        for message_id, about in wishes.items()
        if not places[message_id] and any(wish.kind is CommandKind.DELETE for wish in about)
    }
    return [row for row in found if row["id"] not in deleted]


def overlaid_places(
    session: Session, message_id: int, rows: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The places of one message (``folder``, ``imap_uid``, ``flags`` …) as they are to be shown; a place
    with a wish in it is ``pending``."""
    found = [dict(row) | {"pending": False} for row in rows]
    if not open_wishes(session, [message_id]):
        return found
    known = {(row["folder"], row["imap_uid"]): row for row in found}
    return [
        known.get((place.folder, place.uid), {})
        | {
            "folder": place.folder,
            "imap_uid": place.uid,
            "flags": list(place.flags),
            "pending": place.pending,
        }
        for place in shown_places(session, [message_id])[message_id]
    ]
