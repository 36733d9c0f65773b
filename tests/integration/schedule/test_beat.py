"""What beat sends: bells that may be lost, doubled or unheard, and never more than one waiting a lane."""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from config.queues import Lane, queue_name
from config.settings import Settings
from worker.app import make_app
from worker.beat import Beat, TickScheduler


@pytest.fixture
def beats(settings: Settings) -> Iterator[list[TickScheduler]]:
    """Two beats on an empty broker, and no worker."""
    app = make_app(settings.model_copy(update={"tick_seconds": 0.1, "dispatch_tick_seconds": 0.05}))
    with app.connection() as connection:
        client: Any = connection.default_channel.client
        client.flushall()
        yield [TickScheduler(app=app) for _ in range(2)]
        client.flushall()


def waiting(beat: TickScheduler) -> dict[Lane, int]:
    channel: Any = beat.connection.default_channel
    return {lane: int(channel.client.llen(queue_name(lane))) for lane in Lane}


def test_beats_without_workers_leave_no_more_than_one_bell_each_in_a_lane(beats: list[TickScheduler]) -> None:
    """Elsewhere the broker was full after two idle days, and two beats sent everything twice."""
    until = time.monotonic() + 2
    while time.monotonic() < until:
        for beat in beats:
            beat.tick()

    left = waiting(beats[0])
    assert left[Lane.SYNC] == left[Lane.HISTORY] == left[Lane.DISPATCH] == 1
    assert 1 <= left[Lane.HOUSEKEEPING] <= 2  # search and housekeeping, rung at once
    assert left[Lane.ENQUEUE] == 0


def test_a_lane_that_was_served_is_rung_again(beats: list[TickScheduler]) -> None:
    beat = beats[0]
    channel: Any = beat.connection.default_channel
    for _ in range(3):
        deadline = time.monotonic() + 10
        while not waiting(beat)[Lane.SYNC]:
            assert time.monotonic() < deadline
            beat.tick()
        channel.client.delete(queue_name(Lane.SYNC))


class Dropping(TickScheduler):
    """Told to stop while a finaliser runs, where what a signal's handler raises is dropped."""

    ticks = 0

    def tick(self, *_args: Any, **_kwargs: Any) -> float:
        Dropping.ticks += 1
        if Dropping.ticks == 3:
            Finalised()
        return 0.01 if Dropping.ticks < 100 else pytest.fail("beat ticks on")


class Finalised:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_beat_ends_wherever_it_is_told_to_stop(settings: Settings) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        Beat(app=make_app(settings), scheduler_cls=Dropping, quiet=True).run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert Dropping.ticks == 3
