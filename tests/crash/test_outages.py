"""Redis emptied, Postgres restarted or killed, a worker asked to stop, each in mid-run: the same counts."""

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from lab.crash.books import assert_positions_without_gaps
from lab.crash.post import assert_each_delivered_as_told, enqueue_round, settled
from lab.crash.programs import connections
from lab.crash.stack import CrashStack
from lab.crash.traffic import Traffic
from tasks.outbound.sender import ARMED_AT_ONCE

pytestmark = pytest.mark.crash

TRIES = 10
"""Rounds in which the trouble may come too late before the check is worth nothing."""

Run = Callable[[Callable[[], None]], Counter[str]]


@pytest.fixture
def run(stack: CrashStack, traffic: Traffic, random: Random) -> Run:
    """Sync and send at once, have trouble in the middle of both, and wait until all is done and agrees.
    Gives the states of what was sent."""

    def once(trouble: Callable[[], None]) -> tuple[bool, Counter[str]]:
        before = traffic.newest()
        came, mail = traffic.round(), enqueue_round(stack, random)
        threshold = random.randint(1, len(mail) // 2)
        stack.wait(
            lambda: settled(stack, mail) >= threshold and traffic.stored_since(before) > 0,
            "both rivers flow",
            pause=0.01,
        )
        midst = settled(stack, mail) < len(mail)
        trouble()
        traffic.settle()
        stack.wait(lambda: settled(stack, mail) == len(mail), "every message sent or in doubt")
        states = assert_each_delivered_as_told(stack, mail)
        print(f"{came} came, {len(mail)} went: {dict(states)}", flush=True)
        assert states["sent"] + states["uncertain"] == len(mail), "a message failed that nobody refused"
        assert_positions_without_gaps(stack)
        return midst, states

    def until_in_the_midst(trouble: Callable[[], None]) -> Counter[str]:
        for _ in range(TRIES):
            midst, states = once(trouble)
            if midst:
                return states
        raise AssertionError("the trouble never came in mid-run")

    return until_in_the_midst


def test_a_flushed_broker_costs_no_message(stack: CrashStack, run: Run) -> None:
    states = run(stack.flush)

    assert states["uncertain"] == 0


def test_a_killed_broker_is_found_again_and_costs_no_message(stack: CrashStack, run: Run) -> None:
    """Elsewhere workers went quiet after the broker came back, alive and deaf."""
    workers = list(stack.workers)

    states = run(stack.kill_broker)

    assert states["uncertain"] == 0
    assert stack.workers == workers


def test_a_restarted_postgres_costs_no_message(stack: CrashStack, run: Run) -> None:
    open_then: list[int] = []

    def trouble() -> None:
        open_then.append(sum(connections(worker.pid, stack.smtp.port) for worker in stack.workers))
        stack.postgres.restart()

    states = run(trouble)

    assert states["uncertain"] <= open_then[-1]


def test_a_killed_postgres_leaves_doubt_and_no_second_copy(stack: CrashStack, run: Run) -> None:
    """The notes of begun DATA are gone, so every armed message may have been delivered."""
    open_then: list[int] = []

    def trouble() -> None:
        open_then.append(sum(connections(worker.pid, stack.smtp.port) for worker in stack.workers))
        stack.postgres.kill()
        stack.postgres.start()

    states = run(trouble)

    assert states["uncertain"] <= open_then[-1] * ARMED_AT_ONCE


def test_a_killed_relay_and_beat_leave_events_and_positions_whole(stack: CrashStack, run: Run) -> None:
    def trouble() -> None:
        stack.restart_other("relay")
        stack.restart_other("beat")

    states = run(trouble)

    assert states["uncertain"] == 0


def test_a_worker_told_to_stop_finishes_what_is_on_the_wire_and_gives_the_rest_back(
    stack: CrashStack, run: Run, random: Random
) -> None:
    codes: list[int] = []

    def trouble() -> None:
        worker = stack.holding("outbox_lanes", random) or random.choice(stack.workers)
        worker.ask_to_stop()
        codes.append(worker.ended())
        for table in ("schedule", "outbox_lanes"):
            assert stack.leases_of(table, worker) == 0, f"a lease in {table} outlived its worker's farewell"
        stack.replace(worker)

    states = run(trouble)

    assert set(codes) == {0}
    assert states["uncertain"] == 0
