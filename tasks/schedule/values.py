"""Values and pure rules of the schedule."""

import random
from dataclasses import dataclass
from datetime import datetime

from config.queues import Lane

FIRST_RETRY_SECONDS = 15.0
LAST_RETRY_SECONDS = 3600.0
GROWTH_WHEN_QUIET = 1.5
TIMES_WHEN_WATCHED = 3.0
"""So much longer is the pause where a watcher hears of what comes to INBOX."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease on a row of ``table`` (``schedule`` or ``outbox_lanes``): whose, and its fencing token."""

    table: str
    mailbox_id: int
    token: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A mailbox taken for syncing. ``crashes`` counts the leases in a row that ended by expiry, which
    is what a worker that died leaves behind; ``asked`` tells that someone waits for this sync.

    ``doubted``: its host had faults lately, so its answer is news; ``probe``: this is the one try that the
    host's breaker lets through.
    """

    lease: Held
    lane: Lane
    interval: float
    failures: int
    crashes: int
    asked: bool
    claimed_at: datetime
    host: str
    doubted: bool
    probe: bool

    @property
    def mailbox_id(self) -> int:
        """The mailbox's inner id."""
        return self.lease.mailbox_id


def next_interval(previous: float, *, changed: bool, shortest: float, longest: float) -> float:
    """Seconds until the next poll: short while mail flows, growing while nothing happens."""
    if changed:
        return shortest
    return min(longest, max(shortest, previous * GROWTH_WHEN_QUIET))


@dataclass(frozen=True, slots=True)
class Rest:
    """Seconds until a mailbox is polled again: ``pause``, or ``watched`` while a watcher is connected to it.
    ``interval`` is what the pause after that grows from."""

    interval: float
    pause: float
    watched: float


def rest(interval: float, wanted: float | None = None) -> Rest:
    """The rest that follows from the adaptive ``interval``, unless one is ``wanted`` whatever happens."""
    if wanted is not None:
        return Rest(interval, wanted, wanted)
    return Rest(interval, interval, TIMES_WHEN_WATCHED * interval)


def retry_delay(failures: int, draw: float | None = None) -> float:
    """Seconds until the next try after ``failures`` in a row (≥ 1): exponential, at most an hour,
    the upper half drawn at random so that many do not return at once."""
    full = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 20))
    return full * (0.5 + 0.5 * (random.random() if draw is None else draw))


def jittered(seconds: float, draw: float | None = None) -> float:
    """``seconds``, a tenth more or less."""
    return seconds * (0.9 + 0.2 * (random.random() if draw is None else draw))
