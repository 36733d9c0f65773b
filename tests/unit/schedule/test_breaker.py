"""The rules of the breaker: it opens after faults in a row, rests ever longer, and any answer closes it."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tasks.schedule.breaker import (
    FAULTS,
    FIRST_PAUSE,
    LAST_PAUSE,
    LONGEST_RETURN,
    RETURNS_A_SECOND,
    Breaker,
    after_fault,
    pause,
    return_seconds,
)

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
DRAWS = st.floats(0, 1)


def faults(count: int, *, probe: bool = False) -> Breaker:
    breaker = Breaker()
    for _ in range(count):
        breaker = after_fault(breaker, NOON, probe=probe, draw=1.0)
    return breaker


def test_the_fifth_fault_in_a_row_opens_it() -> None:
    assert not faults(FAULTS - 1).is_open
    assert faults(FAULTS) == Breaker(FAULTS, 1, NOON, NOON + timedelta(seconds=FIRST_PAUSE))


def test_a_fault_of_a_try_that_was_under_way_changes_nothing() -> None:
    opened = faults(FAULTS)

    assert after_fault(opened, NOON + timedelta(hours=1), probe=False, draw=0.5) is opened


def test_a_probe_that_fails_doubles_the_pause_and_keeps_since_when() -> None:
    later = NOON + timedelta(minutes=1)

    again = after_fault(faults(FAULTS), later, probe=True, draw=1.0)

    assert again.retry_at == later + timedelta(seconds=2 * FIRST_PAUSE)
    assert (again.opened_at, again.trips) == (NOON, 2)


@given(st.integers(1, 10_000), DRAWS)
def test_pauses_are_bounded_and_never_shrink(trips: int, draw: float) -> None:
    found = pause(trips, draw).total_seconds()

    assert FIRST_PAUSE / 2 <= found <= LAST_PAUSE
    assert found <= pause(trips + 1, draw).total_seconds()


@given(st.integers(1, 30))
def test_pauses_are_drawn_apart(trips: int) -> None:
    assert pause(trips, 1.0) == 2 * pause(trips, 0.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), DRAWS, st.integers(0, 600)), max_size=60))
def test_whatever_happens_it_is_open_only_after_faults_in_a_row_and_always_with_a_way_back(
    happenings: list[tuple[bool, bool, float, int]],
) -> None:
    """Each happening: a fault or an answer, of the probe or not, and the seconds since the one before."""
    breaker, in_a_row, now = Breaker(), 0, NOON
    for failed, probe, draw, seconds in happenings:
        now += timedelta(seconds=seconds)
        before = breaker
        breaker = after_fault(breaker, now, probe=probe, draw=draw) if failed else Breaker()
        in_a_row = in_a_row + 1 if failed else 0
        assert breaker.is_open == (in_a_row >= FAULTS)
        assert breaker.is_open == (breaker.retry_at is not None) == (breaker.trips > 0)
        if breaker.is_open and breaker != before:
            assert breaker.retry_at is not None
            assert timedelta(0) < breaker.retry_at - now <= timedelta(seconds=LAST_PAUSE)


@given(st.integers(0, 10_000_000))
def test_those_who_return_are_spread_no_longer_than_bearable(waiting: int) -> None:
    window = return_seconds(waiting)

    assert 0 <= window <= LONGEST_RETURN
    assert window == LONGEST_RETURN or waiting <= RETURNS_A_SECOND * window + 1
