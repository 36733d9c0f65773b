"""``kill -9`` of a worker in mid-dispatch: nothing lost, nothing delivered twice, doubt listed and small.

The receiving server notes a message before it pauses and says so; what it noted is what was delivered.
"""

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
