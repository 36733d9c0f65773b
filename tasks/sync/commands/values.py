"""Values of the commands, and where one that is to run finds its message."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from schema.tables.sync import CommandKind, MessageState

OURS, THEIRS = "mailwright", "server"
"""Where a change came from, as events tell it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message lies now, as stored."""

    folder_id: int
    folder: str
    uid: int
    flags: tuple[str, ...]

    @classmethod
    def load(cls, row: Mapping[str, Any]) -> "Place":
        """From the JSON of `queries.PLACES`."""
        return cls(row["folder_id"], row["folder"], row["uid"], tuple(row["flags"]))


@dataclass(frozen=True, slots=True)
class Change:
    """A command about a message that is due. ``sent``: an earlier try may have reached the server."""

    id: int
    uid: UUID
    kind: CommandKind
    folder_id: int
    target_id: int | None
    add: tuple[str, ...]
    remove: tuple[str, ...]
    tries: int
    sent: bool
    message_id: int
    message_uid: UUID
    message_state: MessageState
    name: str | None
    """Message-ID."""
    size: int
    digest: bytes
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class At:
    """The message lies there; with ``arrived`` it lies in the target too, where an earlier try put it."""

    place: Place
    arrived: Place | None = None


@dataclass(frozen=True, slots=True)
class Already:
    """What was wished for is so."""


@dataclass(frozen=True, slots=True)
class Later:
    """Nobody knows yet where the message is."""


@dataclass(frozen=True, slots=True)
class Gone:
    """There is nothing left to change."""

    reason: str


def locate(change: Change) -> At | Already | Later | Gone:
    """Find the place that a command is about: where the message lay when it was wished for, or, if it is
    there no more, the only other place it has."""
    if change.message_state is MessageState.DELETED:
        return Already() if change.kind is CommandKind.DELETE else Gone("the message was deleted.")
    if not change.places:
        return Later()
    here = next((p for p in change.places if p.folder_id == change.folder_id), None)
    there = next((p for p in change.places if p.folder_id == change.target_id), None)
    if there is not None:
        unfinished = change.kind is CommandKind.MOVE and change.sent and here is not None
        return At(here, there) if unfinished and here is not None else Already()
    if here is not None:
        return At(here)
    if len(change.places) == 1:
        return At(change.places[0])
    names = " and ".join(sorted(place.folder for place in change.places))
    return Gone(f"the message is not where it was; it lies in {names}.")


@dataclass(frozen=True, slots=True)
class Item:
    """One command of a group with the UID it is about."""

    change: Change
    uid: int
    arrived: Place | None


@dataclass(frozen=True, slots=True)
class Group:
    """Commands that ask for the same in the same folder; one command to the server does them all."""

    kind: CommandKind
    folder_id: int
    target_id: int | None
    add: tuple[str, ...]
    remove: tuple[str, ...]
    items: tuple[Item, ...]

    def alone(self) -> "list[Group]":
        """Each of them by itself, after a try of all together that may have done a part."""
        items = [replace(item, change=replace(item.change, sent=True)) for item in self.items]
        return [replace(self, items=(item,)) for item in items]


def grouped(found: Iterable[tuple[Change, At]]) -> list[Group]:
    """Put together what one command can do. No message may be in ``found`` twice."""
    groups: dict[tuple[object, ...], Group] = {}
    for change, at in found:
        item = Item(change, at.place.uid, at.arrived)
        empty = Group(change.kind, at.place.folder_id, change.target_id, change.add, change.remove, ())
        key = (empty.kind, empty.folder_id, empty.target_id, empty.add, empty.remove)
        group = groups.get(key, empty)
        groups[key] = replace(group, items=(*group.items, item))
    return list(groups.values())


def wished(flags: Sequence[str], add: Sequence[str], remove: Sequence[str]) -> tuple[str, ...]:
    """Flags after a wish, sorted. Flags know no case (RFC 9051 §2.3.2)."""
    off = {flag.lower() for flag in remove}
    has = {flag.lower() for flag in flags}
    kept = [flag for flag in flags if flag.lower() not in off]
    return tuple(sorted([*kept, *(flag for flag in add if flag.lower() not in has | off)]))


def agrees(flags: Sequence[str], add: Sequence[str], remove: Sequence[str]) -> bool:
    """Whether flags are as wished."""
    return wished(flags, add, remove) == tuple(sorted(flags))
