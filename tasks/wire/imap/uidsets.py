"""Sets of UIDs as commands can carry them (RFC 9051 §9, sequence-set)."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from tasks.wire.imap.values import UidSet

LONGEST: Final = 3800
"""Bytes of one set; Yandex refuses commands much longer than 4,000."""


def ranges(uids: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending inclusive ranges that hold exactly ``uids``."""
    found: list[tuple[int, int]] = []
    for uid in sorted(set(uids)):
        if found and found[-1][1] == uid - 1:
            found[-1] = (found[-1][0], uid)
        else:
            found.append((uid, uid))
    return found


def pieces(uids: UidSet, longest: int = LONGEST) -> Iterator[bytes]:
    """``uids`` as sets of at most ``longest`` bytes. Raises `ValueError` for what is no range of UIDs."""
    words: list[bytes] = []
    size = 0
    for first, last in uids:
        if not 1 <= first <= last:
            raise ValueError(f"not a range of UIDs: {first}:{last}")
        word = b"%d" % first if first == last else b"%d:%d" % (first, last)
        if words and size + len(word) >= longest:
            yield b",".join(words)
            words, size = [], 0
        words.append(word)
        size += len(word) + 1
    if words:
        yield b",".join(words)


def batches(uids: Sequence[int], count: int, longest: int = LONGEST) -> Iterator[bytes]:
    """``uids`` in their order, at most ``count`` to a set."""
    for start in range(0, len(uids), count):
        yield from pieces(ranges(uids[start : start + count]), longest)


class Within:
    """Whether a UID is in a set: ``uid in Within(uids)``."""

    def __init__(self, uids: UidSet) -> None:
        self._ranges = sorted(uids)
        self._firsts = [first for first, _ in self._ranges]

    def __contains__(self, uid: int) -> bool:
        place = bisect_right(self._firsts, uid)
        return place > 0 and uid <= self._ranges[place - 1][1]
