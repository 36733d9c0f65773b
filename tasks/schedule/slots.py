"""Who holds the slots of one process: no slow host may take them from the others.

    unknown ──an answer within 5 s──> quick: most of the slots, all where it is alone
       ▲                                │
       └──five minutes──slow <──it made us wait longer──┘        slow and unknown: a quarter

A tarpit so holds up a quarter of a process at most, and who is quick waits for nobody.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from tasks.runtime import Runtime
from tasks.schedule.breakers import slow

PATIENCE: Final = 5.0
"""Seconds of waiting for one answer past which a host is slow."""
LATELY: Final = 300.0
"""Seconds for which that is remembered."""


def share(slots: int, *, quick: bool, alone: bool) -> int:
    """How many of ``slots`` a host may hold; ``alone``: no other was served lately."""
    quarter = max(1, slots // 4)
    if not quick:
        return quarter
    return slots if alone else max(quarter, slots - quarter)


class Slots:
    """The slots of one process, ``MAILWRIGHT_CONCURRENCY``; for any thread."""

    def __init__(self, runtime: Runtime, clock: Callable[[], float] = time.monotonic) -> None:
        self.choosing = threading.Lock()
        """Held from asking who is `full` until what was chosen is `taken`."""
        self._slots = runtime.settings.concurrency
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self._seen: dict[str, float] = {}
        self._quick: set[str] = set()
        self._slow: dict[str, float] = {}
        self._untold: set[tuple[str, str]] = set()

    @property
    def held(self) -> Mapping[str, int]:
        """How many slots each host holds."""
        with self._lock:
            return dict(self._held)

    def full(self) -> list[str]:
        """The hosts that hold their share."""
        with self._lock:
            now = self._clock()
            self._seen = {host: at for host, at in self._seen.items() if now - at < LATELY}
            return [host for host, count in self._held.items() if count >= self._share(host, now)]

    def take(self, host: str) -> None:
        """A slot begins to serve a host."""
        with self._lock:
            self._seen[host] = self._clock()
            self._held[host] = self._held.get(host, 0) + 1

    def give_back(self, host: str) -> None:
        """It serves it no more."""
        with self._lock:
            self._held[host] -= 1
            if not self._held[host]:
                del self._held[host]

    @contextmanager
    def taken(self, host: str) -> Iterator[None]:
        """Take a slot, and give it back after the block."""
        self.take(host)
        try:
            yield
        finally:
            self.give_back(host)

    def waited(self, protocol: str, host: str, seconds: float) -> None:
        """The longest wait for an answer of a host, which spoke ``imap`` or ``smtp``."""
        with self._lock:
            now = self._clock()
            until = self._slow.get(host, now)
            if seconds > PATIENCE:
                if until < now + LATELY / 2:
                    self._untold.add((protocol, host))
                self._slow[host] = now + LATELY
                self._quick.discard(host)
            elif until <= now:
                self._slow.pop(host, None)
                self._quick.add(host)

    def untold(self) -> set[tuple[str, str]]:
        """Protocol and host of those that were found to be slow since this was asked last."""
        with self._lock:
            told, self._untold = self._untold, set()
        return told

    def close(self) -> None:
        """Nothing to close."""

    def _share(self, host: str, now: float) -> int:
        alone = all(other == host for other in self._seen)
        return share(self._slots, quick=host in self._quick, alone=alone)


def tell_slow(runtime: Runtime) -> None:
    """Note for people which hosts are in the slow lane."""
    for protocol, host in runtime.kept(Slots).untold():
        with runtime.db.begin() as session:
            slow(session, protocol, host, LATELY)
