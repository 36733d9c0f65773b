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


def test_a_small_watcher_leaves_more_to_the_others() -> None:
    assert share(1000, 5000, []) == 1000
    assert share(1000, 5000, [5000]) == 500
    assert share(1000, 5000, [100]) == 900
    assert share(1000, 100, [5000]) == 100
    assert share(1000, 5000, [100, 5000]) == 450
    assert share(10_000, 500, [500, 500]) == 500


@given(st.integers(0, 20_000), st.lists(st.integers(0, 20_000), min_size=1, max_size=9))
def test_shares_cover_everything_that_fits(mailboxes: int, most: list[int]) -> None:
    shares = [share(mailboxes, own, most[:i] + most[i + 1 :]) for i, own in enumerate(most)]

    assert all(fair <= own for fair, own in zip(shares, most, strict=True))
    assert sum(shares) >= min(mailboxes, sum(most))
    assert sum(shares) <= mailboxes + len(most)


@given(st.integers(0, 20_000), st.integers(0, 20_000))
def test_giving_to_others_comes_to_rest_at_about_the_share(held: int, fair: int) -> None:
    looks = 0
    while given_away := surplus(held, fair):
        assert held - given_away >= fair
        held -= given_away
        looks += 1

    assert held <= fair + max(10, fair // 20)
    assert looks < 200
