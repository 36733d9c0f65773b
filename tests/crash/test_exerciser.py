"""Everything at once, by lot, on a real Dovecot, with workers killed: at rest the server's files, Postgres
and the events replayed from zero are one account, and no message is announced twice."""

import os
from collections import Counter
from random import Random

import pytest

from lab.crash.exerciser import Exerciser
from lab.crash.rounds import MOST_MISSES
from lab.crash.stack import CrashStack

pytestmark = pytest.mark.crash

ROUNDS_VARIABLE = "MAILWRIGHT_EXERCISER_ROUNDS"
ROUNDS = 10
"""Rounds whose kill lay between their first and last commit."""


def test_the_server_postgres_and_the_events_are_one_account(stack: CrashStack, random: Random) -> None:
    wanted = int(os.environ.get(ROUNDS_VARIABLE, ROUNDS))
    exerciser = Exerciser(stack, random)
    counted = misses = 0
    try:
        while counted < wanted:
            hit = exerciser.round()
            print(f"exerciser round {counted + misses + 1}: {hit}", flush=True)
            if hit is not None and hit.counts:
                counted += 1
            else:
                misses += 1
                assert misses <= MOST_MISSES + wanted // 5, "the kills do not fall into the rounds"
    finally:
        exerciser.close()
    done = sum((program.done for program in exerciser.programs), Counter[str]())
    print(f"{dict(done)}, commands {exerciser.ends()}, refused {dict(exerciser.refused)}", flush=True)
    expected = {"message.moved", "message.copied", "message.deleted", "folder.reset", "folder.renamed"}
    assert expected <= exerciser.types()
