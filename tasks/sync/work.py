"""What one sync of one mailbox holds: its lease, its session, its slice of time, its writer."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy.orm import Session

from tasks.mailboxes import Route
from tasks.runtime import Runtime
from tasks.schedule import Claim, fence
from tasks.wire.imap import ImapSession

T = TypeVar("T")


@dataclass(slots=True)
class Work:
    """One sync in progress. ``suspicious``: the try before died; ``careful``: how many messages are still
    fetched one by one, each counted before it is asked for, because such a try may have died of one."""

    runtime: Runtime
    claim: Claim
    route: Route
    imap: ImapSession
    now: datetime
    deadline: float
    suspicious: bool
    writer: "Writer"
    careful: int = 0

    def commit(self, change: Callable[[Session], T]) -> T:
        """Run ``change`` in one transaction of this lease: fenced first, and progress told after."""
        with self.runtime.db.begin() as session:
            fence(session, self.claim.lease, self.runtime.settings.lease_seconds)
            result = change(session)
        self.progress()
        return result

    def progress(self) -> None:
        """The sync moved on, so its lease may be renewed."""
        self.runtime.heartbeat.progress(self.claim.lease)

    @property
    def out_of_time(self) -> bool:
        """Whether the slice is used up, or the process is told to stop."""
        return time.monotonic() >= self.deadline or self.runtime.stopping.is_set()


class Writer:
    """Commits one batch while the next is on the wire: in order, at most one waiting."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._last: Future[int] | None = None
        self.stored = 0

    def submit(self, commit: Callable[[], int]) -> None:
        """Wait for the batch before, then hand over this one; raises what the one before raised."""
        self.flush()
        self._last = self._executor.submit(commit)

    def flush(self) -> None:
        """Wait until all that was handed over is committed."""
        last, self._last = self._last, None
        if last is not None:
            self.stored += last.result()
