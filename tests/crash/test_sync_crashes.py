"""``kill -9`` of a worker in mid-sync: what the server has is what Postgres has, once, announced once."""

from random import Random

import pytest

from lab.crash.books import assert_positions_without_gaps
from lab.crash.rounds import MOST_MISSES, strike, wanted_rounds
from lab.crash.stack import CrashStack
from lab.crash.traffic import Traffic

pytestmark = pytest.mark.crash


def test_a_worker_killed_in_mid_sync_loses_and_doubles_nothing(
    stack: CrashStack, traffic: Traffic, random: Random
) -> None:
    counted = misses = 0
    while counted < wanted_rounds():
        before = traffic.newest()
        came = traffic.round()

        hit = strike(stack, random, "schedule", came, lambda before=before: traffic.stored_since(before))

        traffic.settle()
        print(f"sync round {counted + misses + 1}: {hit}", flush=True)
        if hit is not None and hit.counts:
            counted += 1
        else:
            misses += 1
            assert misses <= MOST_MISSES, "the kills do not fall into the syncs"

    assert stack.one("SELECT count(*) FROM mailwright.places WHERE stub IS NOT NULL") == 0
    assert_positions_without_gaps(stack)
