"""SMTP sessions that a process keeps open between two dispatches of a mailbox.

They rest for at most `REST` seconds, which the lane's row tells to other processes, so that resting
sessions count against the caps and are gone before anyone else opens more.
"""

import threading
import time
from dataclasses import dataclass
from typing import Final

from tasks.mailboxes import Route
from tasks.outbound.witness import Witness
from tasks.runtime import Runtime
from tasks.wire.net import Budget, Endpoint
from tasks.wire.smtp import SmtpSession

REST: Final = 2.0
"""Seconds that a session may rest."""
_EARLY: Final = 0.3
"""Seconds before `REST` ends at which we close."""


@dataclass(frozen=True, slots=True)
class _Key:
    """A session serves one mailbox, by the endpoint and login it was opened with."""

    mailbox_id: int
    endpoint: Endpoint
    login: str


@dataclass(frozen=True, slots=True)
class _Resting:
    session: SmtpSession
    until: float


class Connections:
    """The resting sessions of one process, and its `Witness`."""

    def __init__(self, runtime: Runtime) -> None:
        self.witness = Witness(runtime.db)
        self._connect_timeout = runtime.settings.connect_timeout_seconds
        self._resting: dict[_Key, list[_Resting]] = {}
        self._lock = threading.Lock()
        self._reaper: threading.Thread | None = None
        self._closed = threading.Event()

    def held(self, route: Route) -> SmtpSession | None:
        """A resting session that is still good, or None."""
        while True:
            with self._lock:
                resting = self._resting.get(_key(route))
                if not resting:
                    return None
                found = resting.pop()
                if not resting:
                    del self._resting[_key(route)]
            if found.until > time.monotonic() and found.session.usable:
                return found.session
            found.session.close()

    def open(self, route: Route, budget: Budget) -> SmtpSession:
        """A new session. Raises `SessionFailed`. A mailbox without a password does not log in."""
        login, password = (route.login, route.password) if route.password else (None, None)
        return SmtpSession.open(
            route.endpoint, login, password, budget, connect_timeout=self._connect_timeout
        )

    def rest(self, route: Route, session: SmtpSession, begun: float) -> None:
        """Keep ``session`` until `REST` seconds after ``begun`` (monotonic, from before the release)."""
        with self._lock:
            self._resting.setdefault(_key(route), []).append(_Resting(session, begun + REST - _EARLY))
            if self._reaper is None:
                self._reaper = threading.Thread(target=self._reap, name="smtp reaper", daemon=True)
                self._reaper.start()

    def close(self) -> None:
        """Close every session and the witness."""
        self._closed.set()
        with self._lock:
            everyone = [resting for found in self._resting.values() for resting in found]
            self._resting.clear()
        for resting in everyone:
            resting.session.close()
        self.witness.close()

    def _reap(self) -> None:
        while not self._closed.wait(0.1):
            now = time.monotonic()
            with self._lock:
                over = [r for found in self._resting.values() for r in found if r.until <= now]
                self._resting = {
                    key: kept
                    for key, found in self._resting.items()
                    if (kept := [r for r in found if r.until > now])
                }
            for resting in over:
                resting.session.close()


def _key(route: Route) -> _Key:
    return _Key(route.mailbox_id, route.endpoint, route.login)
