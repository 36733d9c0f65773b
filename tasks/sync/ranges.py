"""Sets of UIDs as ordered, disjoint, inclusive ranges: small where mail is dense, however much there is."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

LAST_UID = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Ranges:
    """An immutable set of UIDs. ``spans`` ascend, are disjoint and do not touch."""

    spans: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        assert all(low <= high for low, high in self.spans)

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]]) -> "Ranges":
        """Any spans, in any order, overlapping or not."""
        merged: list[tuple[int, int]] = []
        for low, high in sorted(spans):
            if merged and low <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        return cls(tuple(merged))

    @classmethod
    def below(cls, uidnext: int) -> "Ranges":
        """Every UID under one."""
        return cls(((1, uidnext - 1),)) if uidnext > 1 else cls()

    @classmethod
    def load(cls, stored: Multirange[int]) -> "Ranges":
        """From Postgres' ``int8multirange``, whose upper bounds are exclusive."""
        return cls.of((r.lower, r.upper - 1) for r in stored if r.lower is not None and r.upper is not None)

    def dump(self) -> Multirange[int]:
        """To Postgres' ``int8multirange``."""
        return Multirange([Range(low, high + 1) for low, high in self.spans])

    def __contains__(self, uid: int) -> bool:
        return any(low <= uid <= high for low, high in self.spans)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.spans)

    def __bool__(self) -> bool:
        return bool(self.spans)

    @property
    def top(self) -> int:
        """The highest UID, 0 where empty."""
        return self.spans[-1][1] if self.spans else 0

    def add(self, low: int, high: int) -> "Ranges":
        """With ``low..high`` too."""
        return Ranges.of((*self.spans, (low, high)))

    def remove(self, low: int, high: int) -> "Ranges":
        """Without ``low..high``."""
        left: list[tuple[int, int]] = []
        for span_low, span_high in self.spans:
            if span_high < low or span_low > high:
                left.append((span_low, span_high))
                continue
            if span_low < low:
                left.append((span_low, low - 1))
            if span_high > high:
                left.append((high + 1, span_high))
        return Ranges(tuple(left))

    def holes(self, last: int) -> "Ranges":
        """What of ``1..last`` is not in the set."""
        left = Ranges(((1, last),)) if last >= 1 else Ranges()
        for low, high in self.spans:
            left = left.remove(low, high)
        return left

    def highest(self, width: int) -> tuple[int, int] | None:
        """The top of the highest span, at most ``width`` UIDs wide; None where empty."""
        if not self.spans:
            return None
        low, high = self.spans[-1]
        return max(low, high - width + 1), high
