"""The budget counts waiting and nothing else."""

import pytest

from tasks.wire.net import Budget, Endpoint, Security


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_counts_only_what_is_waited() -> None:
    clock = Clock()
    budget = Budget(10, clock)
    clock.now += 50  # our own work
    with budget.waiting():
        clock.now += 4

    assert budget.waited == 4
    assert budget.left() == 6


def test_it_counts_a_wait_that_ends_in_an_error() -> None:
    clock = Clock()
    budget = Budget(10, clock)

    def wait_in_vain() -> None:
        with budget.waiting():
            clock.now += 4
            raise OSError

    with pytest.raises(OSError):
        wait_in_vain()

    assert budget.waited == 4


def test_nothing_is_left_of_an_overdrawn_budget() -> None:
    budget = Budget(1)
    budget.spend(5)

    assert budget.left() == 0
    assert budget.waited == 5


def test_no_more_is_given_back_than_was_spent() -> None:
    budget = Budget(10)
    budget.spend(2)
    budget.give_back(5)

    assert budget.waited == 0


def test_an_endpoint_is_shown_as_people_write_it() -> None:
    assert str(Endpoint("mail.example", 465, Security.TLS)) == "mail.example:465"
    assert str(Endpoint("::1", 25, Security.NONE)) == "[::1]:25"
