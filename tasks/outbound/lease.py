"""The lease of one lane, seen from this process: its token, and until when it surely lasts.

The lease runs by the database's clock; here its end is reckoned by CLOCK_BOOTTIME (which goes on
while the machine sleeps) from before the statement that set it, so our end is never the later one.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from config.errors import LeaseLost, MailwrightError
from schema.database import Database
from tasks.outbound import queries

_log = structlog.get_logger()
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Seconds since the machine started, asleep or awake."""
    return time.clock_gettime(_CLOCK)


class LaneLease:
    """A held lane. ``lost`` is set when a renewal found another holder or the work stood still."""

    def __init__(
        self, db: Database, mailbox_id: int, token: int, seconds: float, begun: float, patience: float
    ) -> None:
        """``begun``: `boottime` from before the claim. ``patience``: seconds of work without `progress`
        after which the lease is no longer renewed."""
        self.mailbox_id = mailbox_id
        self.token = token
        self.seconds = seconds
        self.lost = threading.Event()
        self._db = db
        self._until = begun + seconds
        self._patience = patience
        self._moved = time.monotonic()
        self._done = threading.Event()
        self._gate = threading.Lock()

    @property
    def key(self) -> dict[str, int]:
        """The parameters of the fence."""
        return {"mailbox_id": self.mailbox_id, "token": self.token}

    def left(self) -> float:
        """Seconds for which nobody else can have taken the lane."""
        return 0.0 if self.lost.is_set() else self._until - boottime()

    def progress(self) -> None:
        """The work moved on."""
        self._moved = time.monotonic()

    def yield_to_renewal(self) -> None:
        """Wait while a renewal waits for the row: share locks of a busy lane, overlapping without end,
        would starve it."""
        with self._gate:
            pass

    def lasts(self, seconds: float) -> bool:
        """Whether it lasts that long, renewed now if need be."""
        if self.left() < seconds and not self.lost.is_set():
            with contextlib.suppress(MailwrightError):
                self.renew()
        return self.left() >= seconds

    def renew(self) -> None:
        """Prolong it. Raises `LeaseLost`."""
        begun = boottime()
        with self._gate, self._db.begin() as session:
            if session.execute(queries.RENEW, {**self.key, "lease": self.seconds}).first() is None:
                self.lost.set()
                raise LeaseLost("another process holds this lane now.")
        self._until = begun + self.seconds

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew it three times in its life during the block."""
        thread = threading.Thread(target=self._run, name="outbound lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _run(self) -> None:
        while not self._done.wait(self.seconds / 3):
            if time.monotonic() - self._moved > self._patience:
                _log.warning("lane.stalled", mailbox_id=self.mailbox_id)
                self.lost.set()
                return
            try:
                self.renew()
            except LeaseLost:
                return
            except MailwrightError as error:
                _log.warning("lease.renewal_failed", mailbox_id=self.mailbox_id, error=str(error))
