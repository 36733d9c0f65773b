"""The circuit breaker of a host: pure rules.

    closed ──fifth fault in a row──> open ──its pause is over──> half-open: one probe at a time
      ▲                               ▲                             │
      │                               └────fault: pause doubles─────┤
      └──an edit of the provider──────────────the host answered─────┘

Any answer closes it, a refused password too: the host is there. Faults of tries that were under way when it
opened change nothing.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

FAULTS: Final = 5
"""Faults in a row, whichever mailboxes met them, that open it."""
FIRST_PAUSE, LAST_PAUSE = 10.0, 300.0
"""Seconds of the first pause, doubled each time, and of the longest."""
RETURNS_A_SECOND: Final = 20.0
LONGEST_RETURN: Final = 600.0
"""Seconds over which those that wait are spread, at most, when a host is back."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """``faults`` in a row; open where ``opened_at`` is set, after ``trips`` pauses in a row, with the next
    probe at ``retry_at``."""

    faults: int = 0
    trips: int = 0
    opened_at: datetime | None = None
    retry_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether the host is left alone, but for probes."""
        return self.opened_at is not None


def after_fault(breaker: Breaker, now: datetime, *, probe: bool, draw: float) -> Breaker:
    """One more fault; ``probe``: of the one try that an open breaker lets through. ``draw``: 0 to 1."""
    if breaker.is_open:
        if not probe:
            return breaker
        trips = breaker.trips + 1
        return replace(breaker, trips=trips, retry_at=now + pause(trips, draw))
    faults = breaker.faults + 1
    if faults < FAULTS:
        return Breaker(faults)
    return Breaker(faults, 1, now, now + pause(1, draw))


def pause(trips: int, draw: float) -> timedelta:
    """How long the host is left alone after the ``trips``-th (≥ 1) opening in a row: 10 s doubling to 5 min,
    the upper half drawn at random."""
    full = min(LAST_PAUSE, FIRST_PAUSE * 2.0 ** min(trips - 1, 20))
    return timedelta(seconds=full * (0.5 + 0.5 * draw))


def return_seconds(waiting: int) -> float:
    """Over how long those ``waiting`` for a host that is back are spread."""
    return min(LONGEST_RETURN, waiting / RETURNS_A_SECOND)
