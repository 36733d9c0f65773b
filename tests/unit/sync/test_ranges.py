"""Ranges are sets of UIDs, whatever is done to them."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.sync.ranges import Ranges

LAST = 60
spans = st.lists(
    st.tuples(st.integers(1, LAST), st.integers(1, LAST)).map(lambda pair: (min(pair), max(pair))), max_size=8
)


def members(ranges: Ranges) -> set[int]:
    return {uid for low, high in ranges for uid in range(low, high + 1)}


@given(spans)
def test_spans_are_ordered_disjoint_and_do_not_touch(given_spans: list[tuple[int, int]]) -> None:
    ranges = Ranges.of(given_spans)

    assert members(ranges) == {uid for low, high in given_spans for uid in range(low, high + 1)}
    assert all(left[1] + 1 < right[0] for left, right in zip(ranges.spans, ranges.spans[1:], strict=False))


@given(spans, spans)
def test_adding_and_removing_are_those_of_sets(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    added, removed = Ranges.of(first), Ranges.of(first)
    for span in second:
        added, removed = added.add(*span), removed.remove(*span)

    assert members(added) == members(Ranges.of(first)) | members(Ranges.of(second))
    assert members(removed) == members(Ranges.of(first)) - members(Ranges.of(second))


@given(spans)
def test_holes_are_what_is_missing(given_spans: list[tuple[int, int]]) -> None:
    ranges = Ranges.of(given_spans)

    assert members(ranges.holes(LAST)) == set(range(1, LAST + 1)) - members(ranges)


@given(spans)
def test_postgres_gives_back_what_it_was_given(given_spans: list[tuple[int, int]]) -> None:
    ranges = Ranges.of(given_spans)

    assert Ranges.load(ranges.dump()) == ranges


@given(spans, st.integers(1, 20))
def test_taking_the_highest_again_and_again_takes_everything(
    given_spans: list[tuple[int, int]], width: int
) -> None:
    left, seen = Ranges.of(given_spans), set[int]()
    while (window := left.highest(width)) is not None:
        assert window[1] - window[0] < width
        seen |= set(range(window[0], window[1] + 1))
        left = left.remove(*window)

    assert seen == members(Ranges.of(given_spans))
