"""Watchers in threads of the test, and a sync that is rung."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from config.queues import Lane
from config.settings import Settings
from lab.ports import wait_until
from tasks.access import SYSTEM
from tasks.runtime import Runtime
from tasks.sync.engine import sync_due
from tasks.watch import Watcher

SOON = 20.0
"""Seconds; generous, because the machine may be slow."""


@dataclass(frozen=True, slots=True)
class Running:
    """A watcher at work; ``rung`` counts how often it woke the sync."""

    runtime: Runtime
    watcher: Watcher
    thread: threading.Thread
    rung: list[float]

    def stop(self) -> None:
        """As SIGTERM does."""
        self.runtime.stopping.set()
        self.thread.join(SOON)
        assert not self.thread.is_alive()


Start = Callable[..., Running]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Start a watcher with settings of its own; with ``syncing`` a ring runs the sync."""
    with ExitStack() as stack:

        def begin(*, syncing: bool = False, **fields: object) -> Running:
            given = {"watch_lease_seconds": 2, "watch_logins": 4, "imap_timeout_seconds": 3} | fields
            runtime = Runtime.open(settings.model_copy(update=given))
            stack.callback(runtime.close)
            rung: list[float] = []

            def ring() -> None:
                rung.append(time.monotonic())
                if syncing:
                    sync_due(SYSTEM, runtime, Lane.SYNC, lambda: None)

            watcher = Watcher(runtime, ring)
            running = Running(runtime, watcher, threading.Thread(target=watcher.run, daemon=True), rung)
            running.thread.start()
            stack.callback(running.stop)
            return running

        yield begin


@pytest.fixture
def rows(runtime: Runtime) -> Callable[..., list[Any]]:
    """Ask the database, or tell it."""

    def ask(statement: str, **parameters: object) -> list[Any]:
        with runtime.db.begin() as session:
            result = session.execute(text(statement), parameters)
            return list(result.all()) if result.returns_rows else []  # type: ignore[attr-defined]

    return ask


@pytest.fixture
def eventually(rows: Callable[..., list[Any]]) -> Callable[..., None]:
    """Wait until a question's first value is true."""

    def wait(statement: str, **parameters: object) -> None:
        wait_until(lambda: bool(rows(statement, **parameters)[0][0]), SOON, statement)

    return wait
