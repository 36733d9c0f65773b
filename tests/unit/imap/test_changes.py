"""What COPYUID tells (RFC 4315 §3), and nonsense under its name."""

import pytest

from tasks.wire.imap.changes import Copied, copied


def test_both_sets_pair_up_in_the_order_told() -> None:
    assert copied(b"38505 304,319:320 3956:3958") == Copied(38505, {304: 3956, 319: 3957, 320: 3958})
    assert copied(b"7 5,3 10,12") == Copied(7, {5: 10, 3: 12})
    assert copied(b"7 3:1 9:11") == Copied(7, {1: 9, 2: 10, 3: 11})


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"7",
        b"7 1 2 3",
        b"7 1:2 5",
        b"7 1,2 5,5",
        b"7 0 5",
        b"7 1:4294967295 1:4294967295",
        b"7 1: 5:",
        b"7 * 5",
        b"7 1:2:3 1:2:3",
        b"99999999999 1 2",
    ],
)
def test_nonsense_tells_nothing(argument: bytes) -> None:
    assert copied(argument) is None
