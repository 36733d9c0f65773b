"""Logging in: a few threads, hosts served by turns, none of them with more than half of the threads.

A host that lets us wait holds up its own mailboxes and no others; one that dropped thousands is not
stormed when it returns.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import structlog

from config.errors import MailwrightError
from tasks import mailboxes
from tasks.mailboxes import NotReady, Protocol
from tasks.runtime import Runtime
from tasks.schedule import fault
from tasks.schedule.faults import blames_host
from tasks.watch.values import Claimed, Standing
from tasks.watch.watching import Watching
from tasks.wire import net
from tasks.wire.imap import ImapSession, LoginRefused
from tasks.wire.imap.idle import Idle, hand_over

INBOX: Final = b"INBOX"

Ready = Callable[[Watching, bytes, Standing], None]
"""Told a session that rests in INBOX, the bytes read early, and what INBOX looked like."""
Failed = Callable[[Claimed, str], None]
"""Told a mailbox with which there is no session now, and why."""

_log = structlog.get_logger()


class Logins:
    """A pool of ``most`` threads and, for each host, who waits."""

    def __init__(self, runtime: Runtime, most: int, ready: Ready, failed: Failed) -> None:
        self._runtime = runtime
        self._most_of_host = max(1, most // 2)
        self._most = most
        self._ready = ready
        self._failed = failed
        self._executor = ThreadPoolExecutor(most, "watch login")
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Claimed]] = {}
        self._busy: dict[str, int] = {}
        self._endpoints: dict[net.Endpoint, net.Endpoint] = {}
        self._stopped = False

    def add(self, claims: list[Claimed]) -> None:
        """These are to be logged in."""
        with self._lock:
            for claimed in claims:
                self._waiting.setdefault(claimed.host, deque()).append(claimed)
        self._next()

    def forget(self, wanted: Callable[[int], bool]) -> None:
        """Let only those wait that are ``wanted``."""
        with self._lock:
            self._waiting = {
                host: deque(each for each in waiting if wanted(each.mailbox_id))
                for host, waiting in self._waiting.items()
            }

    def stop(self) -> None:
        """Begin no more; those under way end by themselves."""
        with self._lock:
            self._stopped = True
            self._waiting.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> None:
        with self._lock:
            while not self._stopped and sum(self._busy.values()) < self._most:
                host = self._whose_turn()
                if host is None:
                    return
                waiting = self._waiting.pop(host)
                claimed = waiting.popleft()
                if waiting:
                    self._waiting[host] = waiting  # behind the others
                self._busy[host] = self._busy.get(host, 0) + 1
                self._executor.submit(self._log_in, claimed).add_done_callback(_told)

    def _whose_turn(self) -> str | None:
        self._waiting = {host: waiting for host, waiting in self._waiting.items() if waiting}
        return next((each for each in self._waiting if self._busy.get(each, 0) < self._most_of_host), None)

    def _log_in(self, claimed: Claimed) -> None:
        try:
            self._ready(*self._open(claimed))
        except LoginRefused as error:
            self._refused(claimed, error)
            self._failed(claimed, str(error))
        except NotReady as error:
            self._failed(claimed, str(error))
        except MailwrightError as error:
            _log.info("watch.no_session", mailbox_id=claimed.mailbox_id, error=str(error), code=error.code)
            self._failed(claimed, str(error))
            if blames_host(error, first=not claimed.failures):
                self._blame(claimed.host, str(error))
        except Exception as error:
            self._failed(claimed, f"unexpected {type(error).__name__}")
            raise
        finally:
            with self._lock:
                self._busy[claimed.host] -= 1
                if not self._busy[claimed.host]:
                    del self._busy[claimed.host]
            self._next()

    def _open(self, claimed: Claimed) -> tuple[Watching, bytes, Standing]:
        runtime = self._runtime
        route = mailboxes.open_route(runtime, claimed.mailbox_id, Protocol.IMAP)
        session_open = ImapSession.open(
            self._shared(route.endpoint),
            route.login,
            route.password,
            timeout=runtime.settings.imap_timeout_seconds,
            connect_timeout=runtime.settings.connect_timeout_seconds,
            use_condstore=route.trust_condstore,
        )
        try:
            seen = session_open.select(INBOX, readonly=True)
        except BaseException:
            session_open.close()
            raise
        idles = "IDLE" in session_open.capabilities
        sock, early = hand_over(session_open)
        standing = Standing(
            claimed.mailbox_id, seen.uidvalidity, seen.uidnext, seen.messages, seen.highestmodseq
        )
        return Watching(claimed, sock, Idle(idles=idles), time.monotonic()), early, standing

    def _blame(self, host: str, error: str) -> None:
        """Count a fault against the host. Where it is left alone now, nobody else waits for it."""
        try:
            with self._runtime.db.begin() as session:
                until = fault(session, Protocol.IMAP, host, error)
        except MailwrightError as failure:
            _log.warning("watch.fault_not_noted", host=host, error=str(failure))
            return
        if until is not None:
            with self._lock:
                waiting = self._waiting.pop(host, deque())
            for claimed in waiting:
                self._failed(claimed, error)

    def _shared(self, endpoint: net.Endpoint) -> net.Endpoint:
        """The one object that all sessions with a place share: it may hold a certificate."""
        with self._lock:
            return self._endpoints.setdefault(endpoint, endpoint)

    def _refused(self, claimed: Claimed, error: LoginRefused) -> None:
        try:
            with self._runtime.db.begin() as session:
                mailboxes.login_refused(session, claimed.mailbox_id, Protocol.IMAP, error.words)
        except MailwrightError as failure:
            _log.warning("watch.refusal_not_noted", mailbox_id=claimed.mailbox_id, error=str(failure))


def _told(future: Future[None]) -> None:
    """A fault of ours is told; the mailbox comes back after its pause."""
    error = None if future.cancelled() else future.exception()
    if error is not None:
        _log.error("watch.login_broke", exc_info=error)
