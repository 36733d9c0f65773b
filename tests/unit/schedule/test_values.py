"""Intervals and back-off."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.schedule.values import LAST_RETRY_SECONDS, jittered, next_interval, retry_delay


@given(st.integers(1, 1000), st.floats(0, 1))
def test_a_retry_waits_at_least_some_seconds_and_at_most_an_hour(failures: int, draw: float) -> None:
    assert 7 < retry_delay(failures, draw) <= LAST_RETRY_SECONDS


@given(st.integers(1, 8))
def test_each_failure_waits_longer_than_the_last(failures: int) -> None:
    assert retry_delay(failures + 1, 0.5) > retry_delay(failures, 0.5)


def test_a_quiet_mailbox_is_polled_less_and_less_up_to_the_bound() -> None:
    interval = 30.0
    for _ in range(20):
        interval = next_interval(interval, changed=False, shortest=30, longest=600)

    assert interval == 600


def test_a_change_brings_the_short_interval_back() -> None:
    assert next_interval(600, changed=True, shortest=30, longest=600) == 30


@given(st.floats(0, 1))
def test_jitter_is_a_tenth(draw: float) -> None:
    assert 89.9 <= jittered(100, draw) <= 110.1
