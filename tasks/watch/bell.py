"""Waking the sync: many news become one statement and one ring."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from config.errors import TransientError

AT_ONCE: Final = 1000
"""Mailboxes in one statement."""
APART: Final = 0.25
"""Least seconds between two wake-ups of one mailbox; what comes between is not lost but waits."""
RETRY: Final = 1.0
"""Seconds until a wake-up that failed is tried again."""

Wake = Callable[[Sequence[int]], None]
"""Make these mailboxes (ascending) due now and say so to the workers. Raises `TransientError`."""

_log = structlog.get_logger()


class Bell:
    """A thread of its own, so that a slow database stops no session. The first news go at once; what comes
    while a statement is under way goes with the next."""

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._wanted: dict[int, float] = {}  # mailbox: not before
        self._woken: dict[int, float] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="watch bell", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Wake what is waiting, once more, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def ring(self, mailboxes: Sequence[int]) -> None:
        """These have news."""
        with self._changed:
            for mailbox_id in mailboxes:
                self._wanted.setdefault(mailbox_id, self._woken.get(mailbox_id, 0.0) + APART)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            batch, last = self._next()
            if batch:
                try:
                    self._wake(batch)
                except TransientError as error:
                    _log.warning("watch.wake_failed", mailboxes=len(batch), error=str(error))
                    self._put_back(batch)
            if last:
                return

    def _next(self) -> tuple[list[int], bool]:
        """Those whose time has come, ascending; waits for the first. And whether that is the last of all."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                soonest = min(self._wanted.values(), default=None)
                if soonest is not None and soonest <= now:
                    break
                self._changed.wait(None if soonest is None else soonest - now)
            now = time.monotonic()
            ready = [one for one, at in self._wanted.items() if at <= now or self._stopping]
            batch = sorted(ready)[: None if self._stopping else AT_ONCE]
            for mailbox_id in batch:
                del self._wanted[mailbox_id]
            self._woken = {one: at for one, at in self._woken.items() if now - at < APART}
            self._woken |= dict.fromkeys(batch, now)
            return batch, self._stopping

    def _put_back(self, batch: Sequence[int]) -> None:
        again = time.monotonic() + RETRY
        with self._changed:
            for mailbox_id in batch:
                self._wanted[mailbox_id] = again
