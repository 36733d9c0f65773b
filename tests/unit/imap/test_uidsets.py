"""Sets of UIDs, short enough for every server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.wire.imap.uidsets import LONGEST, Within, batches, pieces, ranges

uids = st.lists(st.integers(1, 5000), max_size=2000)


def spread(sets: list[bytes]) -> list[int]:
    """The UIDs that sets name."""
    found = []
    for word in b",".join(sets).split(b","):
        first, _, last = word.partition(b":")
        found += list(range(int(first), int(last or first) + 1)) if word else []
    return found


@given(uids)
def test_ranges_hold_exactly_the_uids(numbers: list[int]) -> None:
    sets = list(pieces(ranges(numbers)))

    assert spread(sets) == sorted(set(numbers))
    assert all(len(piece) <= LONGEST for piece in sets)


@given(uids, st.integers(1, 300))
def test_batches_name_every_uid_in_bounded_commands(numbers: list[int], count: int) -> None:
    numbers = list(dict.fromkeys(numbers))

    sets = list(batches(numbers, count, longest=60))

    assert sorted(spread(sets)) == sorted(numbers)
    assert all(len(piece) <= 60 for piece in sets)


@given(uids, st.integers(1, 5001))
def test_within_knows_its_members(numbers: list[int], uid: int) -> None:
    assert (uid in Within(ranges(numbers))) == (uid in numbers)


@pytest.mark.parametrize("bad", [(0, 1), (5, 4), (5, 0)])
def test_what_is_no_range_is_refused(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not a range"):
        list(pieces([bad]))
