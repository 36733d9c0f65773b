"""Several watchers share the mailboxes; what one that is killed held, another takes over."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from lab.crash.programs import Program
from lab.ports import wait_until
from lab.servers.dovecot import Dovecot
from lab.world import Ports, add_mailbox, add_provider
from tasks.runtime import Runtime
from tests.mail.conftest import Account

MAILBOXES = 40
SHARES = "SELECT watcher, count(connected_at) AS n FROM mailwright.watches GROUP BY watcher ORDER BY n"


@pytest.fixture
def programs(settings: Settings, tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Start watchers as processes."""
    assert settings.database_url is not None
    assert settings.broker_url is not None
    assert settings.key_ring is not None
    values = {
        "HOME": str(tmp_path),
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "BROKER_URL": settings.broker_url.get_secret_value(),
        "KEY_RING": settings.key_ring.get_secret_value(),
        "WATCH_LEASE_SECONDS": "2",
    }
    environment = os.environ | {f"MAILWRIGHT_{name}": value for name, value in values.items()}
    with ExitStack() as stack:

        def start(name: str) -> Program:
            program = Program(name, ["watcher"], environment, tmp_path)
            stack.callback(program.kill)
            return program

        yield start


def test_two_watchers_share_and_one_inherits(
    runtime: Runtime,
    dovecot: Dovecot,
    accounts: Iterator[Account],
    programs: Callable[[str], Program],
    rows: Callable[..., list[Any]],
) -> None:
    ports = Ports(imap=dovecot.imaps_port, imap_security="tls", ca=dovecot.ca_file)
    provider = add_provider(runtime, ports)
    for _ in range(MAILBOXES):
        account = next(accounts)
        add_mailbox(runtime, provider, account.address, account.password)
    rows("UPDATE mailwright.mailboxes SET connected_at = now()")

    def shares() -> list[int]:
        return [row.n for row in rows(SHARES) if row.watcher is not None]

    first = programs("first")
    wait_until(lambda: shares() == [MAILBOXES], 30, "one watcher to hold all")
    second = programs("second")
    wait_until(
        lambda: len(shares()) == 2 and min(shares()) >= MAILBOXES // 2 - 10 and sum(shares()) == MAILBOXES,
        30,
        "two watchers to share",
    )

    first.kill()

    wait_until(lambda: shares() == [MAILBOXES], 30, "the other to inherit")
    second.stop()
    assert rows("SELECT count(*) AS n FROM mailwright.watchers")[0].n == 0
    assert shares() == []
