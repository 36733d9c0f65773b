"""Where in a mailbox's queue the last claim ended, so that the next one goes on from there; what is in hand.

    from the head ──a full batch──> behind the last one claimed ──a full batch──> …
          ▲                                   │
          └──after a pause, or less than a batch was there──┘

Whoever searches from the head steps over all that was claimed since Postgres could last clear away what is
over, which an old snapshot (a backup, a forgotten session) puts off: 10 ms and more behind 200,000 messages.
Looking there once a second, and more rarely the longer it takes, bounds both what that costs and for how long
a message of higher priority, or an older one that came back, may be passed over.

Nothing is written by a claim: the lane's lease keeps other processes away, and *in hand* other connections of
this one, until a message is armed.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

HEAD_EVERY: Final = 1.0
"""Seconds between two looks at the head, or `DEAR` times what the last one took, where that is more."""
DEAR: Final = 100.0
MOST_RARELY: Final = 10.0
"""Seconds between two looks whatever they take."""


@dataclass(frozen=True, slots=True)
class Position:
    """A message's, in the order of the queue."""

    priority: int
    due_at: datetime
    id: int


@dataclass(slots=True)
class Place:
    """Of one lane under one lease; its connections share it, the last to claim sets it. Who claims holds
    ``turn``."""

    clock: Callable[[], float] = time.monotonic
    turn: threading.Lock = field(default_factory=threading.Lock)
    in_hand: set[int] = field(default_factory=set)
    _last: Position | None = None
    _head_due: float = 0.0

    def after(self) -> Position | None:
        """Behind which message to claim; None: from the head."""
        last = self._last
        return None if last is None or self.clock() >= self._head_due else last

    def claimed(self, last: Position | None, *, full: bool, head_since: float | None) -> None:
        """A claim ended at ``last``; ``full``: with as many as were asked for; ``head_since``: by the clock,
        when its look at the head began, if it had one."""
        if head_since is not None:
            now = self.clock()
            self._head_due = now + min(MOST_RARELY, max(HEAD_EVERY, DEAR * (now - head_since)))
        self._last = last if full else None

    def out_of_hand(self, ids: Iterable[int]) -> None:
        """These were armed or ended, or are left to a later claim; committed before this is called."""
        with self.turn:
            self.in_hand.difference_update(ids)
