"""Waking: many news become few statements, none is lost."""

import threading
from collections.abc import Sequence

from config.errors import TransientError
from lab.ports import wait_until
from tasks.watch.bell import Bell


class Sync:
    """What the bell wakes; ``gate`` holds a statement up, ``faults`` is how many fail."""

    def __init__(self, faults: int = 0) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.faults = faults
        self.calls: list[list[int]] = []

    def wake(self, mailboxes: Sequence[int]) -> None:
        self.calls.append(list(mailboxes))
        self.gate.wait(10)
        if len(self.calls) <= self.faults:
            raise TransientError("the database cannot be reached.")


def test_what_comes_during_a_statement_goes_with_the_next_in_order() -> None:
    sync = Sync()
    sync.gate.clear()
    bell = Bell(sync.wake)
    bell.start()
    bell.ring([5])
    wait_until(lambda: sync.calls == [[5]], 10, "the first statement")
    for mailbox in (9, 3, 9, 7):
        bell.ring([mailbox])
    sync.gate.set()
    wait_until(lambda: len(sync.calls) == 2, 10, "the second statement")
    bell.stop()

    assert sync.calls == [[5], [3, 7, 9]]


def test_a_mailbox_that_has_news_all_the_time_is_woken_again_later() -> None:
    sync = Sync()
    bell = Bell(sync.wake)
    bell.start()
    bell.ring([1])
    wait_until(lambda: len(sync.calls) == 1, 10, "the first wake-up")
    for _ in range(500):
        bell.ring([1])
    wait_until(lambda: len(sync.calls) == 2, 10, "the second wake-up")
    bell.stop()

    assert sync.calls == [[1], [1]]


def test_a_wake_up_that_failed_is_tried_again() -> None:
    sync = Sync(faults=1)
    bell = Bell(sync.wake)
    bell.start()
    bell.ring([1, 2])
    wait_until(lambda: len(sync.calls) == 2, 10, "the second try")
    bell.stop()

    assert sync.calls == [[1, 2], [1, 2]]


def test_what_waits_at_the_end_is_woken() -> None:
    sync = Sync()
    bell = Bell(sync.wake)
    bell.ring([4])
    bell.start()
    bell.stop()

    assert sync.calls == [[4]]
