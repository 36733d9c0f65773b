"""What a reader of the events alone would have: the log replayed from zero (see docs/events.md).

    state after event n = f(state after event n - 1, event n)

Pure: no database, no clock. An event that cannot follow what came before it is an error, not a guess.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class Inconsistent(Exception):
    """An event that contradicts those before it."""


@dataclass(frozen=True, slots=True)
class Told:
    """One event of the log: its type, what it is about, its facts."""

    type: str
    subject: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lies:
    """A place of a message. ``imap_uid`` is None where the folder was renumbered since it was told."""

    imap_uid: int | None
    flags: tuple[str, ...]


@dataclass(slots=True)
class Replayed:
    """Folders by name with their ids, and the places by folder of every message that is there."""

    folders: dict[str, str] = field(default_factory=dict)
    messages: dict[str, dict[str, Lies]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)


ARRIVALS = frozenset({"message.received", "message.filed"})


def replay(events: Iterable[Told]) -> Replayed:
    """Apply the events of one mailbox, in order, to nothing. Raises `Inconsistent`."""
    state = Replayed()
    for number, event in enumerate(events, 1):
        try:
            _apply(state, event)
        except Inconsistent as error:
            raise Inconsistent(f"event {number}, {event.type} of {event.subject}: {error}") from None
    return state


def _apply(state: Replayed, event: Told) -> None:
    data = event.data
    match event.type:
        case "folder.appeared":
            _require(data["folder"] not in state.folders, "the folder is there already")
            state.folders[data["folder"]] = event.subject
        case "folder.vanished":
            _require(state.folders.get(data["folder"]) == event.subject, "no such folder is there")
            del state.folders[data["folder"]]
            for places in state.messages.values():
                places.pop(data["folder"], None)
        case "folder.renamed":
            _require(state.folders.get(data["was"]) == event.subject, "no such folder is there")
            _require(data["folder"] not in state.folders, "another folder has that name")
            state.folders[data["folder"]] = state.folders.pop(data["was"])
            for places in state.messages.values():
                if data["was"] in places:
                    places[data["folder"]] = places.pop(data["was"])
        case "folder.reset":
            _require(state.folders.get(data["folder"]) == event.subject, "no such folder is there")
            for places in state.messages.values():
                if data["folder"] in places:
                    places[data["folder"]] = Lies(None, places[data["folder"]].flags)
        case "message.received" | "message.filed":
            _require(event.subject not in state.messages, "announced twice")
            _require(event.subject not in state.deleted, "announced after it was deleted")
            state.messages[event.subject] = {}
            _put(state, event)
        case "message.copied":
            _require(bool(_known(state, event)), "a copy of what lies nowhere")
            _put(state, event)
        case "message.moved":
            _moved(state, event)
        case "message.flags_changed":
            places = _known(state, event)
            lies = places.get(data["folder"])
            _require(lies is not None, f"it does not lie in {data['folder']}")
            assert lies is not None
            _require(lies.imap_uid in (None, data["imap_uid"]), f"its UID there is {lies.imap_uid}")
            places[data["folder"]] = Lies(data["imap_uid"], tuple(data["flags"]))
        case "message.deleted":
            _known(state, event)
            del state.messages[event.subject]
            state.deleted.add(event.subject)
        case _:
            pass  # about other things


def _moved(state: Replayed, event: Told) -> None:
    places, left = _known(state, event), event.data.get("left")
    if left is not None:
        _require(left in places, f"it left {left}, where it did not lie")
        del places[left]
    else:
        places.clear()
    if "folder" in event.data:
        _put(state, event)
    else:
        _require(bool(places), "it left its only folder, and neither moved nor was deleted")


def _put(state: Replayed, event: Told) -> None:
    places, folder = state.messages[event.subject], event.data["folder"]
    _require(folder in state.folders, f"{folder} is not there")
    _require(folder not in places, f"it lies in {folder} already")
    places[folder] = Lies(event.data["imap_uid"], tuple(event.data["flags"]))


def _known(state: Replayed, event: Told) -> dict[str, Lies]:
    _require(event.subject not in state.deleted, "it was deleted")
    _require(event.subject in state.messages, "it was never announced")
    return state.messages[event.subject]


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Inconsistent(otherwise)
