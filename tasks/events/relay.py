"""The relay: gives events their position and feeds the sinks. One works at a time, by lease."""

import time
from collections.abc import Sequence

import structlog

from config.errors import LeaseLost, TransientError
from tasks.events import log, queries
from tasks.events.sinks import Sink
from tasks.runtime import Runtime

LEASE = "relay"
LEASE_SECONDS = 10.0
BATCH = 1000
IDLE_SECONDS = 0.1
SINK_RETRY_SECONDS = 2.0

_log = structlog.get_logger()


def run(runtime: Runtime, sinks: Sequence[Sink]) -> None:
    """Work until the runtime is told to stop, waiting for the lease while another relay holds it."""
    rests: dict[str, float] = {}
    while not runtime.stopping.is_set():
        try:
            token = take_lease(runtime)
            if token is None:
                runtime.stopping.wait(LEASE_SECONDS / 4)
                continue
            moved = give_positions(runtime, token)
            fed = sum(
                _feed_patiently(runtime, sink, rests)
                for sink in sinks
                if rests.get(sink.name, 0.0) <= time.monotonic()
            )
        except TransientError as error:
            _log.warning("relay.waiting", error=str(error))
            runtime.stopping.wait(1.0)
            continue
        if not moved and not fed:
            runtime.stopping.wait(IDLE_SECONDS)
    drop_lease(runtime)


def take_lease(runtime: Runtime) -> int | None:
    """Take or renew the relay's lease; its fencing token, or None while another holds it."""
    with runtime.db.begin() as session:
        token = session.execute(
            queries.TAKE_LEASE, {"name": LEASE, "owner": runtime.owner, "seconds": LEASE_SECONDS}
        ).scalar()
    return None if token is None else int(token)


def drop_lease(runtime: Runtime) -> None:
    """Let another relay begin at once."""
    with runtime.db.begin() as session:
        session.execute(queries.DROP_LEASE, {"name": LEASE, "owner": runtime.owner})


def give_positions(runtime: Runtime, token: int) -> int:
    """Copy a batch of pending events into the log. Returns how many."""
    with runtime.db.begin() as session:
        held = session.execute(
            queries.CHECK_LEASE, {"name": LEASE, "owner": runtime.owner, "token": token}
        ).scalar()
        if held is None:
            raise LeaseLost("the relay's lease was lost to another process.")
        last = session.execute(queries.LAST_POSITION).scalar_one()
        moved = session.execute(queries.GIVE_POSITIONS, {"last": last, "limit": BATCH}).rowcount  # type: ignore[attr-defined]
        if moved:
            session.execute(queries.SET_POSITION, {"name": LEASE, "position": last + moved})
    return int(moved)


def feed(runtime: Runtime, sink: Sink) -> int:
    """Feed one batch to one sink and remember how far it is. Returns how many. Raises `SinkDown`."""
    with runtime.db.begin() as session:
        position = session.execute(queries.SINK_POSITION, {"name": sink.name}).scalar_one()
    position = sink.resume(position)
    with runtime.db.begin() as session:
        rows = log.page(session, position, limit=BATCH)
    if not rows:
        return 0
    sink.feed(rows)
    with runtime.db.begin() as session:
        session.execute(queries.SET_POSITION, {"name": sink.name, "position": rows[-1].position})
    return len(rows)


def _feed_patiently(runtime: Runtime, sink: Sink, rests: dict[str, float]) -> int:
    """A sink that is down rests, and holds up no other."""
    try:
        return feed(runtime, sink)
    except TransientError as error:
        _log.warning("sink.failed", sink=sink.name, error=str(error))
        rests[sink.name] = time.monotonic() + SINK_RETRY_SECONDS
        with runtime.db.begin() as session:
            session.execute(queries.SINK_FAILED, {"name": sink.name, "error": str(error)[:500]})
        return 0
