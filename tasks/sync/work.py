"""What one sync of one mailbox holds: its lease, its session, its slice of time, and what it is to write."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy.orm import Session

from tasks.mailboxes import Route
from tasks.runtime import Runtime
from tasks.schedule import Claim, fence
from tasks.wire.imap import ImapSession

T = TypeVar("T")
Change = Callable[[Session], Any]

LITTLE: Final = 512 * 1024
"""So much may wait for the next commit: the few messages of an everyday sync are stored together with the
cursor, in one transaction."""


@dataclass(slots=True)
class Work:
    """One sync in progress. ``suspicious``: the try before died; ``careful``: how many messages are still
    fetched one by one, each counted before it is asked for, because such a try may have died of one;
    ``placed``: how many places this sync has stored, or is about to."""

    runtime: Runtime
    claim: Claim
    route: Route
    imap: ImapSession
    now: datetime
    deadline: float
    suspicious: bool
    careful: int = 0
    placed: int = 0
    _later: list[Change] = field(default_factory=list)
    _weight: int = 0
    _writer: ThreadPoolExecutor | None = None
    _writing: Future[None] | None = None

    def commit(self, change: Callable[[Session], T]) -> T:
        """Run ``change`` in one transaction of this lease, behind all that waits: fenced first, and progress
        told after."""
        self._wait()
        return self._transact(self._taken(), change)

    def later(self, change: Change, weight: int = 0) -> None:
        """Have ``change`` run in the next transaction, at the latest that which gives the mailbox back. What
        is heavy (bytes) by now is written beside the work that goes on."""
        self._later.append(change)
        self._weight += weight
        if self._weight > LITTLE:
            self._wait()
            changes = self._taken()
            if self._writer is None:
                self._writer = ThreadPoolExecutor(1, "writer")
            self._writing = self._writer.submit(self._transact, changes, _nothing)

    def flush(self) -> None:
        """Wait until all that was to be written is committed; raises what befell it."""
        self._wait()
        if self._later:
            self._transact(self._taken(), _nothing)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that sees all that was to be written."""
        self.flush()
        with self.runtime.db.begin() as session:
            yield session

    def close(self) -> None:
        """Wait for what is being written, whatever becomes of it."""
        if self._writer is not None:
            self._writer.shutdown()

    @property
    def storing(self) -> bool:
        """Whether messages are on their way to the database."""
        return self._weight > 0 or self._writing is not None

    def progress(self) -> None:
        """The sync moved on, so its lease may be renewed."""
        self.runtime.heartbeat.progress(self.claim.lease)

    @property
    def out_of_time(self) -> bool:
        """Whether the slice is used up, or the process is told to stop."""
        return time.monotonic() >= self.deadline or self.runtime.stopping.is_set()

    def _transact(self, before: list[Change], change: Callable[[Session], T]) -> T:
        with self.runtime.db.begin() as session:
            fence(session, self.claim.lease, self.runtime.settings.lease_seconds)
            for each in before:
                each(session)
            result = change(session)
        self.progress()
        return result

    def _taken(self) -> list[Change]:
        taken, self._later, self._weight = self._later, [], 0
        return taken

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def _nothing(_session: Session) -> None:
    pass
