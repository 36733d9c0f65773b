"""The one loop in which all sessions of a process wait: a selector, a pipe to wake it, a look at the clocks.

logins ──adopt──> ┌──────┐ ──news──────> bell
steward ──drop──> │ loop │ ──over──────> steward
                  └──────┘
"""

import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

from tasks.watch.values import Times
from tasks.watch.watching import Read, Watching

LOOK: Final = 1.0
"""Seconds between two looks at all clocks, or a fifth of the shortest time where that is less."""

News = Callable[[int], None]
"""Told the mailbox that has news."""
Over = Callable[[Watching, str], None]
"""Told a session that ended by itself, and why."""


class Loop:
    """Runs in a thread of its own from `start` to `stop`; `adopt` and `drop` are for any thread."""

    def __init__(self, times: Times, news: News, over: Over) -> None:
        self._times = times
        self._news = news
        self._over = over
        self._watched: dict[int, Watching] = {}
        self._wishes: deque[Callable[[], None]] = deque()
        self._selector = selectors.DefaultSelector()
        self._bell, self._door = socket.socketpair()
        self._bell.setblocking(False)
        self._door.setblocking(False)
        self._selector.register(self._door, selectors.EVENT_READ, None)
        self._unread: list[Watching] = []
        self._look = min(LOOK, min(times.renew, times.probe, times.noop, times.answer) / 5)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="watch loop", daemon=True)
        self.failed: BaseException | None = None

    @property
    def sessions(self) -> int:
        """How many are here."""
        return len(self._watched)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Say goodbye to every server and end."""
        self._wish(self._leave_all)
        self._thread.join()

    def adopt(self, watching: Watching, early: bytes) -> None:
        """Take over a session; ``early`` bytes were read from it before."""
        self._wish(lambda: self._begin(watching, early))

    def drop(self, mailboxes: Collection[int]) -> None:
        """Hang up on these, as far as they are here."""
        self._wish(lambda: self._leave(mailboxes))

    def _wish(self, wish: Callable[[], None]) -> None:
        self._wishes.append(wish)
        with suppress(BlockingIOError):  # full: it will wake anyway
            self._bell.send(b"!")

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.failed = error
            raise
        finally:
            self._selector.close()
            self._bell.close()
            self._door.close()

    def _work(self) -> None:
        look_at = time.monotonic() + self._look
        while not self._stopping:
            wait = 0.0 if self._unread or self._wishes else max(0.0, look_at - time.monotonic())
            ready = self._selector.select(wait)
            now = time.monotonic()
            unread, self._unread = self._unread, []
            for watching in unread:
                self._read(watching, now)
            for key, _ in ready:
                if key.data is None:
                    self._hear_wishes()
                elif self._is_here(key.data):
                    self._read(key.data, now)
            while self._wishes:
                self._wishes.popleft()()
            if now >= look_at:
                for watching in [each for each in self._watched.values() if each.due <= now]:
                    self._judge(watching, watching.tick(self._times, now), now)
                look_at = now + self._look

    def _hear_wishes(self) -> None:
        with suppress(BlockingIOError):
            while len(self._door.recv(4096)) == 4096:
                pass

    def _is_here(self, watching: Watching) -> bool:
        return self._watched.get(watching.mailbox_id) is watching

    def _begin(self, watching: Watching, early: bytes) -> None:
        now = time.monotonic()
        self._leave([watching.mailbox_id])
        self._watched[watching.mailbox_id] = watching
        self._selector.register(watching.fd, selectors.EVENT_READ, watching)
        self._judge(watching, watching.begin(early, self._times, now), now)
        if self._is_here(watching):
            self._read(watching, now)

    def _read(self, watching: Watching, now: float) -> None:
        if self._is_here(watching):
            self._judge(watching, watching.read(self._times, now), now)

    def _judge(self, watching: Watching, read: Read, now: float) -> None:
        if read.changed:
            self._news(watching.mailbox_id)
        if read.more:
            self._unread.append(watching)
        if read.ended is not None:
            self._forget(watching)
            watching.cut()
            self._over(watching, str(read.ended))

    def _forget(self, watching: Watching) -> None:
        del self._watched[watching.mailbox_id]
        self._selector.unregister(watching.fd)

    def _leave(self, mailboxes: Collection[int]) -> None:
        for mailbox_id in mailboxes:
            watching = self._watched.get(mailbox_id)
            if watching is not None:
                self._forget(watching)
                watching.leave()

    def _leave_all(self) -> None:
        self._leave(list(self._watched))
        self._stopping = True
