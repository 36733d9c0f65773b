"""Many workers and more than one beat: caps are exact, nobody is starved, whoever is killed is replaced."""

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from config.queues import Lane
from config.settings import Settings
from lab.crash.programs import Program
from lab.ports import wait_until
from lab.servers.imap_faults import PASSWORD
from lab.world import Ports, add_mailbox, add_mailboxes, add_provider
from tasks.access import SYSTEM
from tasks.runtime import Runtime
from tasks.sync import engine, sync_due
from tests.mail.sync.odd_imap import OddImap

MAIL = [b"Subject: hello\r\nMessage-ID: <1@test.example>\r\n\r\nHello\r\n"]
CAP = 5
"""Sessions that the counted host allows."""
ESTABLISHED = "01"


def value(runtime: Runtime, statement: str, **given: object) -> object:
    with runtime.db.begin() as session:
        return session.execute(text(statement), given).scalar()


def clients(port: int) -> int:
    """Connections to a loopback port that are open at their client's end, by the kernel's word (proc(5))."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(state == ESTABLISHED and far.endswith(f":{port:04X}") for _, _, far, state, *_ in rows)


class CountingImap(OddImap):
    """It takes its time for a login, and counts its clients at each command."""

    def __init__(self, seconds: float) -> None:
        super().__init__(MAIL)
        self.counts: list[int] = []
        self._seconds = seconds
        self.before = self._count

    def _count(self, name: str, _rest: bytes) -> None:
        self.counts.append(clients(self.port))
        if name in ("LOGIN", "AUTHENTICATE"):
            self.ended.wait(self._seconds)


@contextmanager
def programs(settings: Settings, names: list[str], directory: Path, **more: str) -> Iterator[list[Program]]:
    """Processes of ours on the test's servers."""
    assert settings.database_url is not None
    assert settings.broker_url is not None
    assert settings.key_ring is not None
    values = {
        "home": str(directory),
        "database_url": settings.database_url.get_secret_value(),
        "broker_url": settings.broker_url.get_secret_value(),
        "key_ring": settings.key_ring.get_secret_value(),
        "lease_seconds": "2",
        "tick_seconds": "0.25",
        "poll_min_seconds": "0.2",
        "poll_max_seconds": "1",
        **more,
    }
    environment = {name: each for name, each in os.environ.items() if not name.startswith("MAILWRIGHT_")}
    environment |= {f"MAILWRIGHT_{name.upper()}": each for name, each in values.items()}
    with ExitStack() as stack:
        started = []
        for number, name in enumerate(names):
            started.append(Program(f"{name}-{number}", [name], environment, directory))
            stack.callback(started[-1].stop)
        yield started


def test_three_workers_and_two_beats_keep_a_host_s_cap_though_one_is_killed(
    runtime: Runtime, settings: Settings, tmp_path: Path
) -> None:
    """By the kernel's count of connections, at each command that the server hears."""
    synced = "SELECT count(*) FROM mailwright.schedule WHERE last_synced_at > :since"
    with CountingImap(seconds=0.1) as server:
        provider = add_provider(runtime, Ports(imap=server.port), connections_per_host=CAP)
        boxes = add_mailboxes(
            runtime, provider, [f"m{number}@test.example" for number in range(30)], PASSWORD
        )
        names = ["worker", "worker", "worker", "beat", "beat"]
        with programs(settings, names, tmp_path, held_sessions="0") as running:
            wait_until(lambda: value(runtime, synced, since="-infinity") == len(boxes), 60, "a first round")
            found: list[Program] = []

            def at_work() -> bool:
                owner = value(
                    runtime, "SELECT max(lease_owner) FROM mailwright.schedule WHERE lease_until > now()"
                )
                found.extend(each for each in running if f":{each.pid}:" in f"{owner}")
                return bool(found)

            wait_until(at_work, 60, "a worker to be at work")
            victim = found[0]
            victim.kill()
            since = value(runtime, "SELECT clock_timestamp()")
            wait_until(
                lambda: value(runtime, synced, since=since) == len(boxes), 60, "a round without the victim"
            )

        assert max(server.counts) == CAP
    assert value(runtime, "SELECT max(failures) FROM mailwright.schedule") == 0


def test_five_beside_five_thousand_wait_for_a_few_of_them(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One session at a time serves both, and draws a provider for each mailbox."""
    monkeypatch.setattr(engine, "TASK_SECONDS", 3.0)
    synced = "SELECT count(*) FROM mailwright.schedule WHERE provider_id = :id AND last_synced_at IS NOT NULL"
    with OddImap(MAIL) as server:
        crowd = add_provider(runtime, Ports(imap=server.port), "Crowd")
        few = add_provider(runtime, Ports(imap=server.port, host="localhost"), "Few")
        add_mailboxes(runtime, crowd, [f"m{number}@crowd.example" for number in range(5000)], PASSWORD)
        for number in range(5):
            add_mailbox(runtime, few, f"m{number}@few.example", PASSWORD)

        while value(runtime, synced, id=few) != 5:
            assert value(runtime, synced, id=crowd) < 40
            ticked = threading.Event()
            sync_due(SYSTEM, runtime, Lane.SYNC, ticked.set)
            assert ticked.is_set()
