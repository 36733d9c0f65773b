"""The river out: take the lane whose turn it is, send what is due in it, commit every outcome."""

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog

from config.errors import LeaseLost, MailwrightError, NotFound, PermissionDenied, TransientError
from tasks import schedule
from tasks.access import Actor
from tasks.mailboxes import NotReady, Protocol, Route, login_refused, open_route
from tasks.outbound import queries, store
from tasks.outbound.connections import REST, Connections
from tasks.outbound.lease import LaneLease, boottime
from tasks.outbound.outcomes import reconnect_pause
from tasks.outbound.restores import Guard
from tasks.outbound.sender import LaneWork, Sending, Tally
from tasks.outbound.store import Lane
from tasks.runtime import Runtime
from tasks.schedule.faults import blames_host
from tasks.schedule.slots import Slots, tell_slow
from tasks.wire.smtp import SessionFailed

SLICE: Final = 5.0
"""Seconds that one lane, and one call of `dispatch`, go on claiming."""
MOST_CONNECTIONS: Final = 8
"""Connections that one lane gets in one process."""
NOT_READY_PAUSE: Final = 60.0
"""Seconds until a lane that may not send now is looked at again."""

_log = structlog.get_logger()


@dataclass(slots=True)
class Dispatched:
    """What one call did. ``more``: a lane was due when it stopped."""

    lanes: int = 0
    more: bool = False
    tally: Tally = field(default_factory=Tally)


def dispatch(actor: Actor, runtime: Runtime, limit: float = SLICE) -> Dispatched:
    """Serve lanes for ``limit`` seconds or until none is due. Only the system dispatches."""
    if not actor.system:
        raise PermissionDenied("only the system itself dispatches mail.")
    done, until = Dispatched(), time.monotonic() + limit
    if runtime.kept(Guard).held() is not None:
        return done
    connections, slots = runtime.kept(Connections), runtime.kept(Slots)
    while not runtime.stopping.is_set() and time.monotonic() < until:
        begun = boottime()
        with slots.choosing:
            lane = store.claim_lane(
                runtime.db, runtime.owner, runtime.settings.lease_seconds, MOST_CONNECTIONS, slots.full()
            )
            if lane is None:
                return done
            slots.take(lane.host)
        done.lanes += 1
        try:
            done.tally.add(serve(runtime, connections, lane, begun, until))
        finally:
            slots.give_back(lane.host)
        tell_slow(runtime)
    with runtime.db.begin() as session:
        done.more = bool(session.execute(queries.LANES_DUE).scalar_one())
    return done


def serve(runtime: Runtime, connections: Connections, lane: Lane, begun: float, until: float) -> Tally:
    """Send what is due in one leased lane and give it back. ``begun``: `boottime` before its claim."""
    try:
        way = open_route(runtime, lane.mailbox_id, Protocol.SMTP)
    except (NotReady, NotFound) as reason:
        store.release(runtime.db, lane, error=str(reason), pause=NOT_READY_PAUSE)
        _untried(runtime, lane)
        return Tally()
    lease = LaneLease(
        runtime.db,
        lane.mailbox_id,
        lane.token,
        runtime.settings.lease_seconds,
        begun,
        patience=2 * way.smtp_timeout + 60,
    )
    team = _Team(runtime, connections, lane, lease, way, until)
    with structlog.contextvars.bound_contextvars(mailbox_id=lane.mailbox_id), lease.renewed():
        team.run()
    team.finish()
    return team.tally


def _untried(runtime: Runtime, lane: Lane) -> None:
    """Where the lane was to probe its host, let another do so."""
    if lane.probe:
        with runtime.db.begin() as session:
            schedule.untried(session, Protocol.SMTP, lane.host)


class _Team:
    """The connections that work on one lane: one, and the others once a claim comes back full."""

    def __init__(
        self,
        runtime: Runtime,
        connections: Connections,
        lane: Lane,
        lease: LaneLease,
        way: Route,
        until: float,
    ) -> None:
        self.tally = Tally()
        self._runtime = runtime
        self._connections = connections
        self._lane = lane
        self._way = way
        self._work = LaneWork(runtime, connections, lane, lease, way, until, self._more)
        self._sendings = [Sending(self._work)]
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._trouble: list[BaseException] = []

    def run(self) -> None:
        self._run(self._sendings[0])
        for thread in self._threads:
            thread.join()
        for sending in self._sendings:
            self.tally.add(sending.tally)

    def finish(self) -> None:
        """Give the lane back, unless something is in doubt: then its lease runs out and recovery sorts it."""
        sessions = [s.session for s in self._sendings if s.session is not None]
        if self._trouble:
            for session in sessions:
                session.close()
            error = self._trouble[0]
            if isinstance(error, LeaseLost | TransientError):
                _log.warning("lane.abandoned", mailbox_id=self._lane.mailbox_id, error=str(error))
                return
            raise error
        down, not_before, alone = self._work.down, self._work.not_before, None
        if down is not None:
            alone = self._tell_down(down)
            sessions, pause, words = [], reconnect_pause(self._lane.failures + 1), str(down)
            if alone is not None:
                pause, not_before = 0.0, alone
        else:
            pause, words = 0.0, None
            self._tell_answered(bool(sessions))
        keep = [] if self._runtime.stopping.is_set() else [s for s in sessions if s.usable]
        for session in sessions:
            if session not in keep:
                session.close()
        begun = time.monotonic()
        store.release(
            self._runtime.db,
            self._lane,
            resting=len(keep),
            rest=REST,
            error=words,
            pause=pause,
            not_before=not_before,
            blameless=alone is not None,
        )
        for session in keep:
            self._connections.rest(self._way, session, begun)

    def _more(self) -> None:
        with self._lock:
            if len(self._sendings) > 1 or self._lane.connections < 2:
                return
            for number in range(1, self._lane.connections):
                sending = Sending(self._work)
                self._sendings.append(sending)
                thread = threading.Thread(
                    target=self._run, args=(sending,), name=f"sending {self._lane.mailbox_id}/{number}"
                )
                self._threads.append(thread)
                thread.start()

    def _run(self, sending: Sending) -> None:
        try:
            sending.run()
        except Exception as error:  # noqa: BLE001  raised again by `finish`, in the task's own thread
            self._trouble.append(error)
            self._work.until = 0.0

    def _tell_down(self, down: MailwrightError) -> datetime | None:
        """Count it against the credentials, or against the host. Returns until when that is left alone."""
        runtime, lane = self._runtime, self._lane
        _log.warning("lane.down", mailbox_id=lane.mailbox_id, error=str(down))
        if isinstance(down, SessionFailed) and down.login_refused:
            with runtime.db.begin() as session:
                login_refused(session, lane.mailbox_id, Protocol.SMTP, str(down.reply) if down.reply else "")
            self._tell_answered(True)
        elif blames_host(down, first=lane.probe or not lane.failures):
            with runtime.db.begin() as session:
                return schedule.fault(session, Protocol.SMTP, lane.host, str(down), probe=lane.probe)
        else:
            _untried(runtime, lane)
        return None

    def _tell_answered(self, spoke: bool) -> None:
        """Tell the host's breaker that it answered, where that is news and it was spoken to."""
        if spoke and self._lane.doubted:
            schedule.answered(self._runtime.db, Protocol.SMTP, self._lane.host)
        elif not spoke:
            _untried(self._runtime, self._lane)
