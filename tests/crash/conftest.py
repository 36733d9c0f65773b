"""One stack for all crash tests of a run."""

from collections.abc import Iterator
from random import Random

import pytest

from lab.corpus import generate
from lab.crash.rounds import base_seed
from lab.crash.stack import CrashStack
from lab.crash.traffic import Traffic
from lab.servers.recording import Behaviour

PAUSE_AFTER_DOT = (0.1, 0.14)
"""Seconds between the server's taking a message and its saying so: most of a dispatch is spent here."""


@pytest.fixture(scope="session")
def stack() -> Iterator[CrashStack]:
    """Servers, two workers, beat and relay."""
    with CrashStack(Behaviour(pause_after_dot=PAUSE_AFTER_DOT)) as running:
        yield running


@pytest.fixture(scope="session")
def seed() -> int:
    """The run's seed; settable and printed."""
    return base_seed()


@pytest.fixture(scope="session")
def traffic(stack: CrashStack, seed: int) -> Traffic:
    """What happens on the mail server, counted over the whole run."""
    return Traffic(stack, Random(seed), generate(1_000_000, seed=seed % 1_000_000, mean_size=5_000))


@pytest.fixture
def random(seed: int, request: pytest.FixtureRequest) -> Random:
    """A lot for each test, whichever tests run."""
    return Random(f"{seed} {request.node.name}")
