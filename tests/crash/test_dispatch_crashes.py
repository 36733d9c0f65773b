"""Workers killed or frozen, the server gone, in mid-dispatch: nothing lost or doubled, and doubt is listed.

The receiving server notes a message before it pauses and says so; what it noted is what was delivered.
"""

import time
from random import Random

import pytest

from lab.crash.post import (
    assert_doubt_is_listed,
    assert_each_delivered_as_told,
    enqueue_round,
    in_data,
    settled,
)
from lab.crash.programs import Program, connections
from lab.crash.rounds import MOST_MISSES, strike, wanted_rounds
from lab.crash.stack import CrashStack

pytestmark = pytest.mark.crash

FEW_ROUNDS = 10
"""Of what takes longer."""


def test_a_worker_killed_in_mid_dispatch_loses_and_doubles_nothing(stack: CrashStack, random: Random) -> None:
    counted, misses, within_data, doubtful = 0, 0, 0, 0
    sent: list[str] = []
    while counted < wanted_rounds():
        mail = enqueue_round(stack, random)
        sent += mail
        seen: dict[str, int] = {}

        def look(victim: Program, at: float, seen: dict[str, int] = seen) -> None:
            seen["connections"] = connections(victim.pid, stack.smtp.port)
            seen["in DATA"] = in_data(stack, victim, at)

        hit = strike(stack, random, "outbox_lanes", len(mail), lambda mail=mail: settled(stack, mail), look)
        stack.wait(lambda mail=mail: settled(stack, mail) == len(mail), "every message sent or in doubt")
        states = assert_each_delivered_as_told(stack, mail)
        print(f"dispatch round {counted + misses + 1}: {hit}, {seen}, {dict(states)}", flush=True)

        assert states["sent"] + states["uncertain"] == len(mail), "a message failed that nobody refused"
        assert states["uncertain"] <= seen.get("connections", 0), "more doubt than connections were open"
        doubtful += states["uncertain"]
        if hit is not None and hit.counts:
            counted += 1
            within_data += seen["in DATA"] > 0
        else:
            misses += 1
            assert misses <= MOST_MISSES, "the kills do not fall into the dispatches"

    print(
        f"{within_data} of {counted} kills inside DATA, {doubtful} of {len(sent)} messages in doubt",
        flush=True,
    )
    assert within_data * 3 >= counted
    assert_doubt_is_listed(stack)


def test_a_worker_frozen_past_its_lease_goes_on_and_doubles_nothing(
    stack: CrashStack, random: Random
) -> None:
    """It wakes with connections open and messages armed that another worker has taken over meanwhile."""
    counted, misses = 0, 0
    while counted < wanted_rounds(FEW_ROUNDS):
        mail = enqueue_round(stack, random)
        threshold = random.randint(1, len(mail) * 2 // 3)
        stack.wait(lambda mail=mail, n=threshold: settled(stack, mail) >= n, "a part is sent", pause=0.01)
        victim = stack.holding("outbox_lanes", random)
        if victim is None:
            misses += 1
            assert misses <= MOST_MISSES, "no worker is at work when it should be frozen"
            continue
        victim.freeze()
        try:
            held = stack.leases_of("outbox_lanes", victim)
            open_then = connections(victim.pid, stack.smtp.port)
            stack.wait(lambda victim=victim: not stack.leases_of("outbox_lanes", victim), "its lease is over")
            if random.random() < 0.5:  # it wakes while another is at its messages, or long after
                stack.wait(lambda mail=mail: settled(stack, mail) == len(mail), "others send all")
        finally:
            victim.thaw()
        stack.wait(lambda mail=mail: settled(stack, mail) == len(mail), "every message sent or in doubt")
        time.sleep(random.uniform(0, 0.3))  # so that what it does wrongly is done, or comes in the next round
        states = assert_each_delivered_as_told(stack, mail)
        print(f"frozen round {counted + misses + 1}: {held} leases, {open_then} connections, {dict(states)}")
        assert states["sent"] + states["uncertain"] == len(mail), "a message failed that nobody refused"
        assert states["uncertain"] <= open_then, "more doubt than connections were open"
        counted += held > 0
        misses += held == 0
        assert misses <= MOST_MISSES, "no worker is at work when it should be frozen"
    assert_doubt_is_listed(stack)


def test_a_server_that_goes_away_costs_doubt_and_no_message(stack: CrashStack, random: Random) -> None:
    """It hangs up on everybody in mid-dispatch, is away for a while, and comes back at the same port."""
    for number in range(wanted_rounds(FEW_ROUNDS)):
        mail = enqueue_round(stack, random)
        threshold = random.randint(1, len(mail) * 2 // 3)
        stack.wait(lambda mail=mail, n=threshold: settled(stack, mail) >= n, "a part is sent", pause=0.01)
        open_then = sum(connections(worker.pid, stack.smtp.port) for worker in stack.workers)
        stack.smtp.stop()
        time.sleep(random.uniform(0, 0.3))
        stack.smtp.start()
        stack.rows(
            "WITH now AS (UPDATE mailwright.outbox_lanes SET next_due_at = now() RETURNING 1) SELECT 1"
        )
        stack.wait(lambda mail=mail: settled(stack, mail) == len(mail), "every message sent or in doubt")
        states = assert_each_delivered_as_told(stack, mail)
        print(f"server round {number + 1}: {open_then} connections, {dict(states)}", flush=True)
        assert states["sent"] + states["uncertain"] == len(mail), "a message failed that nobody refused"
    assert_doubt_is_listed(stack)
