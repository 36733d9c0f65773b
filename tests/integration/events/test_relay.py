"""The relay: positions without gaps, sinks fed in order at least once, a vanished stream filled again."""

import json
from collections.abc import Sequence
from io import StringIO
from typing import Any

import redis
from sqlalchemy import text

from config.settings import Settings
from schema.ids import uuid7
from tasks.events import NewEvent, record, relay
from tasks.events.sinks import LogSink, RedisSink, SinkDown, redis_url
from tasks.runtime import Runtime


def write(runtime: Runtime, count: int, start: int = 0) -> None:
    with runtime.db.begin() as session:
        record(
            session,
            [NewEvent("test.happened", None, str(uuid7()), {"n": n}) for n in range(start, start + count)],
        )


def positions(runtime: Runtime) -> list[tuple[int, int]]:
    with runtime.db.begin() as session:
        rows = session.execute(text("SELECT position, data FROM mailwright.events ORDER BY position"))
        return [(row.position, row.data["n"]) for row in rows]


def turn(runtime: Runtime) -> int:
    token = relay.take_lease(runtime)
    assert token is not None
    return relay.give_positions(runtime, token)


def stream_sink(settings: Settings, name: str) -> tuple[RedisSink, Any]:
    client = redis.Redis.from_url(redis_url(settings.require_broker_url()))
    return RedisSink(settings.require_broker_url(), name, 1000), client


def test_positions_follow_the_order_of_writing_without_gaps(runtime: Runtime) -> None:
    write(runtime, 5)
    turn(runtime)
    write(runtime, 3, start=5)
    turn(runtime)

    assert positions(runtime) == [(n + 1, n) for n in range(8)]


def test_what_commits_late_gets_a_later_position_and_is_not_skipped(runtime: Runtime) -> None:
    with runtime.db.begin() as slow:
        record(slow, [NewEvent("test.happened", None, str(uuid7()), {"n": 1})])
        write(runtime, 1, start=2)
        turn(runtime)
    turn(runtime)

    assert positions(runtime) == [(1, 2), (2, 1)]


def test_an_event_of_a_transaction_that_failed_never_was(runtime: Runtime) -> None:
    class Failed(Exception):
        pass

    try:
        with runtime.db.begin() as session:
            record(session, [NewEvent("test.happened", None, "x", {"n": 1})])
            raise Failed
    except Failed:
        pass

    assert turn(runtime) == 0


def test_one_relay_works_at_a_time(runtime: Runtime, settings: Settings) -> None:
    other = Runtime.open(settings)
    try:
        assert relay.take_lease(runtime) is not None
        assert relay.take_lease(other) is None
        relay.drop_lease(runtime)
        assert relay.take_lease(other) is not None
    finally:
        other.close()


def test_the_log_sink_writes_one_json_line_an_event(runtime: Runtime) -> None:
    write(runtime, 3)
    turn(runtime)
    out = StringIO()

    relay.feed(runtime, LogSink(out))

    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["data"]["n"] for line in lines] == [0, 1, 2]
    assert {line["specversion"] for line in lines} == {"1.0"}


def test_a_sink_that_is_down_is_fed_later_and_nothing_is_left_out(runtime: Runtime) -> None:
    class Moody:
        name = "moody"

        def __init__(self) -> None:
            self.down = True
            self.got: list[int] = []

        def resume(self, position: int) -> int:
            return position

        def feed(self, rows: Sequence[Any]) -> None:
            if self.down:
                raise SinkDown("down")
            self.got += [row.data["n"] for row in rows]

    sink = Moody()
    write(runtime, 2)
    turn(runtime)
    try:
        relay.feed(runtime, sink)
    except SinkDown:
        sink.down = False
    write(runtime, 2, start=2)
    turn(runtime)

    relay.feed(runtime, sink)

    assert sink.got == [0, 1, 2, 3]


def test_feeding_the_stream_twice_leaves_each_event_once(runtime: Runtime, settings: Settings) -> None:
    sink, client = stream_sink(settings, f"twice-{uuid7().hex}")
    write(runtime, 4)
    turn(runtime)
    relay.feed(runtime, sink)
    with runtime.db.begin() as session:
        session.execute(text("UPDATE mailwright.sinks SET position = 0 WHERE name = 'redis'"))
        rows = session.execute(text("SELECT * FROM mailwright.events ORDER BY position")).all()

    sink.feed(rows)

    entries = client.xrange(sink._stream)
    assert [entry[0] for entry in entries] == [b"1-0", b"2-0", b"3-0", b"4-0"]


def test_a_flushed_stream_is_filled_again(runtime: Runtime, settings: Settings) -> None:
    sink, client = stream_sink(settings, f"flushed-{uuid7().hex}")
    write(runtime, 6)
    turn(runtime)
    relay.feed(runtime, sink)
    client.delete(sink._stream)

    relay.feed(runtime, sink)

    assert client.xlen(sink._stream) == 6


def test_the_stream_does_not_grow_with_what_happened(runtime: Runtime, settings: Settings) -> None:
    """Elsewhere Redis was full after two idle days."""
    _, client = stream_sink(settings, name := f"long-{uuid7().hex}")
    sink = RedisSink(settings.require_broker_url(), name, 200)
    for start in range(0, 2000, 500):
        write(runtime, 500, start)
        turn(runtime)
        relay.feed(runtime, sink)

    assert 200 <= client.xlen(name) <= 400  # Redis trims by whole nodes of a hundred
    assert client.xinfo_stream(name)["last-generated-id"] == b"2000-0"
