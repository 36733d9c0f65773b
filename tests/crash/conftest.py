"""One stack for all crash tests of a run."""

from collections.abc import Iterator

import pytest

from lab.crash.rounds import base_seed
from lab.crash.stack import CrashStack
from lab.servers.recording import Behaviour

PAUSE_AFTER_DOT = (0.03, 0.09)
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
