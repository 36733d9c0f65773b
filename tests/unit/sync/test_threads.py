"""Threads: by the names a message gives, in any order, else by subject."""

from itertools import count, permutations

import pytest

from tasks.sync.threads import Threadable, thread

CONVERSATION = [
    Threadable(("<a@x>",), "plan", reply=False),
    Threadable(("<b@x>", "<a@x>"), "plan", reply=True),
    Threadable(("<c@x>", "<a@x>", "<b@x>"), "plan", reply=True),
    Threadable(("<d@x>", "<b@x>"), "another subject", reply=False),
]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_conversation_is_one_thread_in_any_order(order: tuple[int, ...]) -> None:
    numbers = count(1)
    known: dict[str, int] = {}
    threads: dict[int, int] = {}
    merged: dict[int, int] = {}
    for index in order:
        message = CONVERSATION[index]
        outcome = thread(
            [message], {n: t for n, t in known.items() if n in message.names}, {}, lambda: next(numbers)
        )
        threads[index] = outcome.threads[0]
        known |= outcome.remember
        merged |= outcome.merged
        known = {name: merged.get(t, t) for name, t in known.items()}
        threads = {i: merged.get(t, t) for i, t in threads.items()}

    assert len(set(threads.values())) == 1


def test_the_same_subject_alone_does_not_join() -> None:
    numbers = count(1)
    first, second = (Threadable((f"<{n}@x>",), "hello", reply=False) for n in "ab")

    outcome = thread([first, second], {}, {}, lambda: next(numbers))

    assert outcome.threads[0] != outcome.threads[1]


def test_a_reply_without_references_is_joined_by_its_subject() -> None:
    numbers = count(1)
    reply = Threadable(("<r@x>",), "hello", reply=True)

    outcome = thread([reply], {}, {"hello": 42}, lambda: next(numbers))

    assert outcome.threads == (42,)


def test_two_stored_threads_joined_by_one_message_become_the_older() -> None:
    joining = Threadable(("<j@x>", "<a@x>", "<b@x>"), "x", reply=True)

    outcome = thread([joining], {"<a@x>": 7, "<b@x>": 3}, {}, lambda: 99)

    assert outcome.threads == (3,)
    assert outcome.merged == {7: 3}
