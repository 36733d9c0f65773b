"""The rules of watching: who gets how many, and when a mailbox comes back."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.watch.values import LAST_PAUSE, STEADY, failures_after, pause_after, share, surplus


def test_pauses_grow_to_a_bound_and_are_spread() -> None:
    assert pause_after(1, 0.0) == 1.0
    assert pause_after(1, 1.0) == 3.0
    assert pause_after(2, 0.5) == 4.0
    assert pause_after(50, 0.5) == LAST_PAUSE


def test_a_steady_session_begins_the_count_anew() -> None:
    assert failures_after(7, STEADY) == 1
    assert failures_after(7, STEADY - 1) == 8


@given(st.integers(0, 20_000), st.integers(1, 50), st.integers(0, 20_000))
def test_shares_cover_everything_that_fits(mailboxes: int, watchers: int, most: int) -> None:
    fair = share(mailboxes, watchers, most)

    assert fair <= most
    assert fair == most or fair * watchers >= mailboxes


@given(st.integers(0, 20_000), st.integers(0, 20_000))
def test_giving_to_others_comes_to_rest_at_about_the_share(held: int, fair: int) -> None:
    looks = 0
    while given_away := surplus(held, fair):
        assert held - given_away >= fair
        held -= given_away
        looks += 1

    assert held <= fair + max(10, fair // 20)
    assert looks < 200
