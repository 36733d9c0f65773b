"""Renewing leases while, and only while, the work that holds them reports progress.

A sync that hangs stops reporting and so loses its lease, and another process takes over.
"""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator

import structlog

from config.errors import MailwrightError
from schema.database import Database
from tasks.schedule import queries
from tasks.schedule.values import Held

_log = structlog.get_logger()


class Heartbeat:
    """One thread a process, renewing every lease it was told of, three times in a lease's life, and sooner
    again what a commit had locked just then."""

    def __init__(self, db: Database, lease_seconds: float, patience: float) -> None:
        """``patience``: seconds without `progress` after which a lease is no longer renewed."""
        self._db = db
        self._lease_seconds = lease_seconds
        self._patience = patience
        self._progress: dict[Held, float] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def holding(self, lease: Held) -> Iterator[None]:
        """Renew ``lease`` during the block."""
        with self._lock:
            self._progress[lease] = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._progress.pop(lease, None)

    def progress(self, lease: Held) -> None:
        """The work under ``lease`` moved on."""
        with self._lock:
            if lease in self._progress:
                self._progress[lease] = time.monotonic()

    def stop(self) -> None:
        """End the thread; leases run out by themselves."""
        self._wake.set()

    def _run(self) -> None:
        pause = third = self._lease_seconds / 3
        while not self._wake.wait(pause):
            pause = third
            try:
                if not self._renew():
                    pause = third / 4
            except MailwrightError as error:
                _log.warning("lease.renewal_failed", error=str(error))

    def _renew(self) -> bool:
        """Whether all were renewed: what was not is locked by a commit, or lost."""
        now = time.monotonic()
        alive: defaultdict[str, list[Held]] = defaultdict(list)
        with self._lock:
            for lease, at in self._progress.items():
                if now - at < self._patience:
                    alive[lease.table].append(lease)
        renewed = 0
        for table, leases in alive.items():
            with self._db.begin() as session:
                rows = session.execute(
                    queries.RENEW[table],
                    {
                        "mailboxes": [lease.mailbox_id for lease in leases],
                        "tokens": [lease.token for lease in leases],
                        "lease": self._lease_seconds,
                    },
                )
                renewed += len(rows.all())
        return renewed == sum(len(leases) for leases in alive.values())
