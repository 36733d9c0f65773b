"""Rounds of killing: which seed, when, whom; and whether the kill says anything.

A round counts only if its kill lay between the round's first and last commit and hit a worker that
held a lease; a kill that came too early or too late is told and another round is made.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from lab.crash.programs import Program
from lab.crash.stack import CrashStack

SEED_VARIABLE: Final = "MAILWRIGHT_CRASH_SEED"
ROUNDS_VARIABLE: Final = "MAILWRIGHT_CRASH_ROUNDS"
ROUNDS: Final = 20
"""Rounds that count, of sync and of dispatch each."""
MOST_MISSES: Final = 20
"""Rounds whose kill may miss before the check is worth nothing."""
LONGEST_AFTER: Final = 0.08
"""Seconds after the drawn commit within which the kill falls."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A kill: who, holding how much, and how many of the round's ``total`` were committed by then."""

    worker: str
    done: int
    total: int

    @property
    def counts(self) -> bool:
        """Whether it lay between the round's first and last commit."""
        return 0 < self.done < self.total


def base_seed() -> int:
    """The seed of this run: from the environment, else drawn; printed so that a run can be repeated."""
    given = os.environ.get(SEED_VARIABLE)
    seed = int(given) if given else int.from_bytes(os.urandom(4))
    print(f"{SEED_VARIABLE}={seed}", flush=True)
    return seed


def wanted_rounds(unless_told: int = ROUNDS) -> int:
    """How many rounds must count."""
    return int(os.environ.get(ROUNDS_VARIABLE, unless_told))


def strike(
    stack: CrashStack,
    random: Random,
    table: str,
    total: int,
    done: Callable[[], int],
    look: Callable[[Program, float], None] = lambda victim, at: None,
) -> Hit | None:
    """Kill a worker that holds a lease in ``table`` at a random point of a round of ``total`` rows, of which
    ``done()`` are committed, and start another in its place. ``look`` sees the victim, frozen since ``at``
    (seconds since the epoch), before it dies.

    None where nobody held a lease any more: the round was over too soon.
    """
    threshold = random.randint(1, max(1, total * 9 // 10))
    stack.wait(lambda: done() >= threshold, f"{threshold} of {total} done", pause=0.01)
    time.sleep(random.uniform(0, LONGEST_AFTER))
    while (victim := stack.holding(table, random)) is None:
        if done() >= total:
            return None
        time.sleep(0.005)
    victim.freeze()
    at = time.time()
    hit = Hit(victim.name, done(), total)
    held = stack.leases_of(table, victim)
    look(victim, at)
    victim.kill()
    stack.replace(victim)
    return hit if held else None
