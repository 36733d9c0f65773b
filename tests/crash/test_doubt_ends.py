"""Where the server files what it sends, all doubt ends, whatever is killed meanwhile; none goes twice."""

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Final

import pytest

from lab.crash.post import assert_all_doubt_ended, enqueue_round, settled
from lab.crash.rounds import MOST_MISSES, wanted_rounds
from lab.crash.stack import FILED, CrashStack

pytestmark = pytest.mark.crash

ROUNDS: Final = 7
"""One of each trouble, unless more are wanted."""

Trouble = Callable[[CrashStack, Random], None]


def kill_a_worker(stack: CrashStack, random: Random) -> None:
    worker = stack.holding("outbox_lanes", random) or random.choice(stack.workers)
    worker.kill()
    stack.replace(worker)


def freeze_a_worker_past_its_lease(stack: CrashStack, random: Random) -> None:
    worker = stack.holding("outbox_lanes", random) or random.choice(stack.workers)
    worker.freeze()
    try:
        stack.wait(lambda: not stack.leases_of("outbox_lanes", worker), "its leases are over")
    finally:
        worker.thaw()


def have_the_server_hang_up_on_all(stack: CrashStack, random: Random) -> None:
    stack.filing.stop()
    stack.filing.start()


def restart_postgres(stack: CrashStack, random: Random) -> None:
    stack.postgres.restart()


def kill_postgres(stack: CrashStack, random: Random) -> None:
    stack.postgres.kill()
    stack.postgres.start()


def kill_the_broker(stack: CrashStack, random: Random) -> None:
    stack.kill_broker()


def flush_the_broker(stack: CrashStack, random: Random) -> None:
    stack.flush()


TROUBLES: Final[tuple[Trouble, ...]] = (
    kill_a_worker,
    freeze_a_worker_past_its_lease,
    have_the_server_hang_up_on_all,
    restart_postgres,
    kill_postgres,
    kill_the_broker,
    flush_the_broker,
)


def test_all_doubt_ends_where_the_server_files_what_it_sends(stack: CrashStack, random: Random) -> None:
    wanted, counted, misses, ends = wanted_rounds(ROUNDS), 0, 0, Counter[str]()
    while counted < wanted:
        trouble = TROUBLES[counted % len(TROUBLES)]
        mail = enqueue_round(stack, random, FILED)
        threshold = random.randint(1, len(mail) * 2 // 3)
        stack.wait(lambda mail=mail, n=threshold: settled(stack, mail) >= n, "a part is sent", pause=0.01)
        midst = settled(stack, mail) < len(mail)
        trouble(stack, random)
        stack.wait(lambda mail=mail: all_sent(stack, mail), "every message sent", pause=0.5)
        came_to = assert_all_doubt_ended(stack, mail)
        print(f"{trouble.__name__}: {dict(came_to)}", flush=True)
        ends += came_to
        counted += midst
        misses += not midst
        assert misses <= MOST_MISSES, "the trouble does not fall into the dispatches"
    assert ends["copy"] > 0, "no doubt was settled by a copy"


def all_sent(stack: CrashStack, mail: list[str]) -> bool:
    """Whether all of it is sent; if not, what waits for its time or for a look is hastened."""
    if stack.one(
        "SELECT bool_and(state = 'sent') FROM mailwright.outbox WHERE uid = ANY(cast(:mail AS uuid[]))",
        mail=mail,
    ):
        return True
    stack.keep_house()
    stack.rows(
        "WITH now AS (UPDATE mailwright.outbox_lanes SET next_due_at = now() WHERE next_due_at > now() "
        "RETURNING 1) SELECT 1"
    )
    return False
