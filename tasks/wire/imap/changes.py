"""Commands that change messages: STORE, COPY, MOVE, EXPUNGE, always by UID (RFC 9051 §6.4).

A plain EXPUNGE is never sent: it would take what other programs have marked ``\\Deleted``. Where the
server has neither MOVE nor UIDPLUS a message to be removed is left marked.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tasks.wire.imap.channel import Channel
from tasks.wire.imap.folders import folder
from tasks.wire.imap.scanner import Data, Status
from tasks.wire.imap.uidsets import pieces, ranges

DELETED: Final = "\\Deleted"
MOST_COPIED: Final = 10_000
"""UIDs of one COPYUID that are believed."""

_COPYUID: Final = re.compile(rb"(\d{1,10}) ([\d,:]+) ([\d,:]+)")
_FLAG: Final = re.compile(r"\\?[A-Za-z0-9$_.&+-]+")


@dataclass(frozen=True, slots=True)
class Copied:
    """Where messages went (RFC 4315 §3): old UIDs to new, under the target folder's UIDVALIDITY."""

    uidvalidity: int
    uids: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Moved:
    """A move's end. ``copied`` is None where the server does not tell; not ``removed``: the old ones
    are still there, marked ``\\Deleted``."""

    copied: Copied | None
    removed: bool


def store(channel: Channel, uids: Sequence[int], flags: Sequence[str], *, add: bool) -> None:
    """UID STORE ±FLAGS.SILENT. Raises `ValueError` for what is no flag."""
    if wrong := [flag for flag in flags if not _FLAG.fullmatch(flag)]:
        raise ValueError(f"not a flag: {wrong[0]!r}")
    words = b"%sFLAGS.SILENT (%s)" % (b"+" if add else b"-", " ".join(flags).encode("ascii"))
    for piece in pieces(ranges(uids)):
        channel.run(b"UID STORE %s %s" % (piece, words), "STORE", _unheard)


def copy(channel: Channel, uids: Sequence[int], target: bytes) -> Copied | None:
    """UID COPY."""
    return _transfer(channel, b"COPY", uids, target)


def move(channel: Channel, capabilities: frozenset[str], uids: Sequence[int], target: bytes) -> Moved:
    """UID MOVE (RFC 6851), or COPY and `expunge` where it is not offered."""
    if "MOVE" in capabilities:
        return Moved(_transfer(channel, b"MOVE", uids, target), removed=True)
    copied = copy(channel, uids, target)
    return Moved(copied, expunge(channel, capabilities, uids))


def expunge(channel: Channel, capabilities: frozenset[str], uids: Sequence[int]) -> bool:
    """Mark as ``\\Deleted`` and UID EXPUNGE (RFC 4315 §2.1). False where the server offers none: then
    they are marked and still there."""
    store(channel, uids, [DELETED], add=True)
    if "UIDPLUS" not in capabilities:
        return False
    for piece in pieces(ranges(uids)):
        channel.run(b"UID EXPUNGE " + piece, "EXPUNGE", _unheard)
    return True


def _transfer(channel: Channel, command: bytes, uids: Sequence[int], target: bytes) -> Copied | None:
    """COPYUID comes in the tagged OK of COPY, and untagged before the EXPUNGEs of MOVE."""
    told: list[Copied] = []

    def hear(response: Data | Status) -> None:
        if isinstance(response, Status) and response.response_code == "COPYUID":
            found = copied(response.argument)
            if found is not None:
                told.append(found)

    name = folder(target)
    for piece in pieces(ranges(uids)):
        hear(channel.run(b"UID %s %s %s" % (command, piece, name), command.decode(), hear))
    if not told or len({each.uidvalidity for each in told}) > 1:
        return None
    pairs = {old: new for each in told for old, new in each.uids.items()}
    return Copied(told[0].uidvalidity, pairs)


def copied(argument: bytes) -> Copied | None:
    """Read COPYUID's argument; None where it makes no sense. Both sets pair up in the order told."""
    match = _COPYUID.fullmatch(argument.strip())
    if match is None:
        return None
    old, new = _expanded(match[2]), _expanded(match[3])
    if not old or new is None or len(old) != len(new) or len(set(new)) != len(new):
        return None
    return Copied(int(match[1]), dict(zip(old, new, strict=True)))


def _expanded(words: bytes) -> list[int] | None:
    found: list[int] = []
    for word in words.split(b","):
        ends = word.split(b":")
        if len(ends) > 2 or not all(end.isdigit() and len(end) <= 10 for end in ends):
            return None
        low, high = sorted((int(ends[0]), int(ends[-1])))
        if low < 1 or high - low + len(found) >= MOST_COPIED:
            return None
        found.extend(range(low, high + 1))
    return found


def _unheard(_response: Data | Status) -> None:
    """Flags and expunges that a change brings are read by whoever asks for them."""
