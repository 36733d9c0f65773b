"""After all that befell the stack before: copies in Sent, mailboxes, events, and the list of doubt."""

from random import Random

import pytest

from lab.crash.books import assert_positions_without_gaps
from lab.crash.post import (
    assert_copied_to_sent_once,
    assert_doubt_is_listed,
    assert_each_delivered_as_told,
    enqueue_round,
    settled,
)
from lab.crash.stack import CrashStack
from lab.crash.traffic import Traffic

pytestmark = pytest.mark.crash


def test_the_stack_goes_on_and_its_books_agree(stack: CrashStack, traffic: Traffic, random: Random) -> None:
    traffic.round()
    mail = enqueue_round(stack, random)

    stack.wait(lambda: settled(stack, mail) == len(mail), "every message sent")
    traffic.settle()

    assert assert_each_delivered_as_told(stack, mail)["sent"] == len(mail)
    assert_copied_to_sent_once(stack)
    assert_doubt_is_listed(stack)
    assert_positions_without_gaps(stack)
    doubtful = stack.rows("SELECT uid::text AS uid FROM mailwright.outbox WHERE state = 'uncertain'")
    assert_each_delivered_as_told(stack, [row.uid for row in doubtful])
