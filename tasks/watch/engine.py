"""The watcher: claims mailboxes, has them logged in, lets the loop hold them, wakes the sync.

    free ──claim──> logging in ──> watched ──news──> due now, workers rung
      ▲                 │             │
      └──────pause──────┴─────end─────┘        a watcher that dies: all it had is free after its lease

Nothing here is needed for mail to come in: a wake-up that is lost costs the time until the next poll. So
two watchers on one mailbox for a moment do no harm, and one lease for all a process holds suffices.
"""

import contextlib
import random
import resource
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from config.errors import InternalError, TransientError
from tasks.runtime import Runtime
from tasks.watch import store
from tasks.watch.bell import Bell
from tasks.watch.logins import Logins
from tasks.watch.loop import Loop
from tasks.watch.values import Claimed, Ended, Standing, Times, failures_after, pause_after, share, surplus
from tasks.watch.watching import Watching

TICK: Final = 0.5
"""Seconds between two looks at who is free."""
REVIEW: Final = 4.0
"""Seconds between two looks for new mailboxes and at what is still ours, at most."""
AT_ONCE: Final = 2000
"""Mailboxes in one statement."""
FILES_KEPT: Final = 200
"""File descriptors for everything but sessions."""

Ring = Callable[[], None]
"""Say to the workers that there is work in the sync lane. Raises `TransientError` where that fails."""

_log = structlog.get_logger()


class Watcher:
    """One process's share. `run` works until the runtime is told to stop, and returns."""

    def __init__(self, runtime: Runtime, ring: Ring) -> None:
        settings = runtime.settings
        self._runtime = runtime
        self._ring = ring
        self._most = max(0, min(settings.watch_sessions, most_files() - FILES_KEPT))
        self._bell = Bell(self._wake)
        self._loop = Loop(times_of(runtime), self._news, self._over)
        self._logins = Logins(runtime, settings.watch_logins, self._ready, self._failed)
        self._lock = threading.Lock()
        self._mine: dict[int, Claimed] = {}  # claimed, with a session or waiting for one
        self._begun: list[Standing] = []
        self._ended: list[Ended] = []
        self._renewed_at = self._reviewed_at = float("-inf")
        self._fair = self._most

    @property
    def sessions(self) -> int:
        """Sessions that wait for news now."""
        return self._loop.sessions

    def run(self) -> None:
        """Watch. A database that is away changes nothing for the sessions that there are."""
        self._bell.start()
        self._loop.start()
        _log.info("watcher.started", most=self._most)
        try:
            while not self._runtime.stopping.is_set():
                try:
                    self._look()
                except TransientError as error:
                    _log.warning("watcher.waiting", error=str(error))
                    self._runtime.stopping.wait(1.0)
                if self._loop.failed is not None:
                    raise InternalError("the watcher's loop ended.") from self._loop.failed
                self._runtime.stopping.wait(TICK)
        finally:
            self._stop()

    def _stop(self) -> None:
        self._logins.stop()
        if self._loop.failed is None:
            self._loop.stop()
        self._bell.stop()
        try:
            store.bury(self._runtime, leaving=True)
        except TransientError as error:
            _log.warning("watcher.left_silently", error=str(error))

    def _look(self) -> None:
        now = time.monotonic()
        lease = self._runtime.settings.watch_lease_seconds
        if now - self._renewed_at >= lease / 4:
            if not store.renew(self._runtime, self.sessions, self._most):
                self._reviewed_at = float("-inf")  # given up for dead, or new
            self._renewed_at = now
        self._report()
        if store.bury(self._runtime):
            _log.info("watcher.inherited")
        if now - self._reviewed_at >= min(REVIEW, lease):
            self._review()
            self._reviewed_at = now
        with self._lock:
            room = min(self._fair, self._most) - len(self._mine)
        if room > 0:
            self._claim(min(room, AT_ONCE))

    def _claim(self, limit: int) -> None:
        claims = store.claim(self._runtime, limit)
        with self._lock:
            self._mine |= {each.mailbox_id: each for each in claims}
        self._logins.add(claims)

    def _report(self) -> None:
        """Tell the database what ended and what began since the last time."""
        ended = self._take_ended()
        if ended:
            try:
                store.give_back(self._runtime, ended)
            except TransientError:
                with self._lock:
                    self._ended += ended
                raise
        with self._lock:
            begun, self._begun = self._begun[:AT_ONCE], self._begun[AT_ONCE:]
        if begun:
            try:
                behind = store.connected(self._runtime, begun)
            except TransientError:
                with self._lock:
                    self._begun += begun
                raise
            self._bell.ring(behind)

    def _take_ended(self) -> list[Ended]:
        with self._lock:
            taken, self._ended = self._ended[:AT_ONCE], self._ended[AT_ONCE:]
        return taken

    def _review(self) -> None:
        """Let go of what is not ours any more, and of what others should have."""
        runtime = self._runtime
        store.enrol(runtime, AT_ONCE)
        held = store.held(runtime)
        crowd = store.crowd(runtime)
        self._fair = share(crowd.mailboxes, self._most, crowd.others)
        with self._lock:
            lost = [one for one in self._mine if one not in held]
            kept = sorted(self._mine.keys() & held)
            over = random.sample(kept, surplus(len(kept), self._fair))
            for mailbox_id in (*lost, *over):
                self._ended.append(Ended(mailbox_id, self._mine.pop(mailbox_id).failures, 0.0, None))
            stray = held - self._mine.keys() - {each.mailbox_id for each in self._ended}
            self._ended += [Ended(one, 0, 0.0, None) for one in sorted(stray)]
        if lost or over:
            _log.info("watcher.let_go", lost=len(lost), shared=len(over))
            self._logins.forget(self._is_mine)
            self._loop.drop([*lost, *over])

    def _is_mine(self, mailbox_id: int) -> bool:
        return mailbox_id in self._mine

    def _ready(self, watching: Watching, early: bytes, standing: Standing) -> None:
        with self._lock:
            ours = (
                self._mine.get(watching.mailbox_id) is watching.claimed
                and not self._runtime.stopping.is_set()
            )
            if ours:
                self._begun.append(standing)
        if ours:
            self._loop.adopt(watching, early)
        else:
            watching.leave()

    def _failed(self, claimed: Claimed, error: str) -> None:
        self._end(claimed, failures_after(claimed.failures, 0.0), error)

    def _over(self, watching: Watching, error: str) -> None:
        lived = time.monotonic() - watching.began
        _log.info("watch.ended", mailbox_id=watching.mailbox_id, lived=round(lived, 1), error=error)
        self._end(watching.claimed, failures_after(watching.claimed.failures, lived), error)

    def _end(self, claimed: Claimed, failures: int, error: str) -> None:
        with self._lock:
            if self._mine.get(claimed.mailbox_id) is claimed:
                del self._mine[claimed.mailbox_id]
                pause = pause_after(failures, random.random())
                self._ended.append(Ended(claimed.mailbox_id, failures, pause, error))

    def _news(self, mailbox_id: int) -> None:
        self._bell.ring([mailbox_id])

    def _wake(self, mailboxes: Sequence[int]) -> None:
        store.wake(self._runtime, mailboxes)
        try:
            self._ring()
        except TransientError as error:  # they are due: the next tick finds them
            _log.warning("watcher.cannot_ring", error=str(error))


def times_of(runtime: Runtime) -> Times:
    """The clocks of all sessions, as the settings have them."""
    settings = runtime.settings
    return Times(
        renew=settings.watch_renew_seconds,
        probe=settings.watch_probe_seconds,
        noop=settings.watch_noop_seconds,
        answer=settings.imap_timeout_seconds,
    )


def most_files() -> int:
    """File descriptors this process may have; the soft limit is raised to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # not on this system
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
