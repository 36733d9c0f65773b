"""Waking the dispatcher after a door has accepted mail: off the caller's way, and many wishes in one ring."""

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from kombu.exceptions import OperationalError

APART: Final = 0.05
"""Seconds between two rings; the second tells of all that came meanwhile."""
REST: Final = 5.0
"""Seconds for which a broker that did not answer is let alone; beat's ticks find what is due."""

_log = structlog.get_logger()


class Bell:
    """A thread that calls ``ring`` soon after it is pulled. A ring that is lost costs one tick."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._pulled = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox bell", daemon=True)
        self._thread.start()

    def pull(self) -> None:
        """There is mail to send, committed."""
        self._pulled.set()

    def close(self) -> None:
        """End; what was pulled is rung once more."""
        self._stopping.set()
        self._pulled.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._pulled.wait()
            self._pulled.clear()
            began = time.monotonic()
            try:
                self._ring()
            except (OperationalError, OSError) as error:
                _log.warning("broker.down", error=type(error).__name__)
                self._stopping.wait(REST)
            self._stopping.wait(max(0.0, began + APART - time.monotonic()))
