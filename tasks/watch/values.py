"""Values and pure rules of watching: when to speak, when to come back, and how much is whose."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FIRST_PAUSE: Final = 2.0
LAST_PAUSE: Final = 900.0
"""Seconds before a mailbox whose session ended is tried again."""
STEADY: Final = 60.0
"""Seconds of life after which the end of a session counts as the first again."""
SLACK: Final = 10
"""Sessions above its share that a watcher keeps: moving them costs logins and gains nothing."""
MOVED_AT_ONCE: Final = 20
"""Part of its sessions (one in so many) that a watcher gives to others at one look."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. ``renew``: longest life of one IDLE; ``probe``: silence after which the server is asked
    whether it is there; ``noop``: between two NOOPs where there is no IDLE; ``answer``: longest wait for
    an answer."""

    renew: float
    probe: float
    noop: float
    answer: float


@dataclass(frozen=True, slots=True)
class Claimed:
    """A mailbox this watcher is to watch. ``failures``: ends of its sessions in a row."""

    mailbox_id: int
    host: str
    failures: int


@dataclass(frozen=True, slots=True)
class Standing:
    """INBOX as the server described it when the session began."""

    mailbox_id: int
    uidvalidity: int
    uidnext: int | None
    messages: int
    modseq: int | None


@dataclass(frozen=True, slots=True)
class Ended:
    """A session that is over, or never came to be; its mailbox is free again after ``pause`` seconds."""

    mailbox_id: int
    failures: int
    pause: float
    error: str | None


def pause_after(failures: int, draw: float) -> float:
    """Seconds until the next try after ``failures`` (≥ 1) in a row; ``draw`` (0 to 1) spreads them from
    half to one and a half, so that the many whom one server dropped do not return at once."""
    full = min(LAST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 20))
    return full * (0.5 + draw)


def failures_after(before: int, lived: float) -> int:
    """Failures in a row, this end included; a session that ``lived`` steadily begins the count anew."""
    return 1 if lived >= STEADY else before + 1


def share(mailboxes: int, most: int, others: Sequence[int]) -> int:
    """How many of ``mailboxes`` a watcher that can hold ``most`` should watch beside ``others``, each with
    the most that it can hold: all alike, and what the small ones cannot take goes to the larger."""
    left, watchers = mailboxes, 1 + len(others)
    for small in sorted(each for each in others if each < most):
        if small * watchers >= left:
            break
        left, watchers = left - small, watchers - 1
    return min(most, math.ceil(left / watchers))


def surplus(held: int, fair: int) -> int:
    """How many sessions to give to others now, so that watchers that joined get theirs: little by little."""
    over = held - fair
    if over <= max(SLACK, fair // MOVED_AT_ONCE):
        return 0
    return min(over, max(SLACK, held // MOVED_AT_ONCE))
