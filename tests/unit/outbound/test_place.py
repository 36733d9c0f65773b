"""Where the next claim looks: behind the last one, and at the head now and then."""

from datetime import UTC, datetime

import pytest

from tasks.outbound.place import DEAR, HEAD_EVERY, MOST_RARELY, Place, Position

LAST = Position(0, datetime(2026, 1, 1, tzinfo=UTC), 17)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_lease_begins_at_the_head(clock: Clock) -> None:
    assert Place(clock).after() is None


def test_what_was_not_full_leads_back_to_the_head(clock: Clock) -> None:
    place = Place(clock)
    place.claimed(LAST, full=True, head_since=clock.now)
    assert place.after() == LAST

    place.claimed(LAST, full=False, head_since=None)

    assert place.after() is None


@pytest.mark.parametrize(
    ("took", "pause"), [(0.0, HEAD_EVERY), (0.001, HEAD_EVERY), (0.05, 0.05 * DEAR), (3.0, MOST_RARELY)]
)
def test_the_head_is_looked_at_the_more_rarely_the_dearer_it_is(
    took: float, pause: float, clock: Clock
) -> None:
    place, begun = Place(clock), clock.now
    clock.now += took
    place.claimed(LAST, full=True, head_since=begun)

    clock.now += pause - 0.01
    assert place.after() == LAST
    place.claimed(LAST, full=True, head_since=None)
    clock.now += 0.02
    assert place.after() is None
