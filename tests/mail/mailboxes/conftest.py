"""A Postfix in front of the Dovecot, and a way to examine one door."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.servers import imap_faults
from lab.servers.certificates import Certificate, issue
from lab.servers.dovecot import Dovecot
from lab.servers.postfix import Postfix
from tasks.mailboxes.connection import Report, StepResult, examine
from tasks.mailboxes.plan import Door
from tasks.mailboxes.values import Protocol
from tasks.wire.net import Endpoint, Security

Examine = Callable[..., Report]


@pytest.fixture(scope="session")
def postfix(dovecot: Dovecot) -> Iterator[Postfix]:
    """A real Postfix that asks Dovecot about logins."""
    with Postfix(dovecot, ("test.example",)) as server:
        yield server


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """A certificate of an authority that nobody trusts unless told to."""
    return issue(tmp_path / "tls")


@pytest.fixture
def look() -> Examine:
    """Examine a port; what was heard on the way must be what the report says."""

    def looked(
        protocol: Protocol,
        port: int,
        security: Security,
        login: str = "anna",
        password: str = imap_faults.PASSWORD,
        *,
        ca: Path | None = None,
        host: str = "127.0.0.1",
        timeout: float = 5.0,
    ) -> Report:
        heard: list[StepResult] = []
        endpoint = Endpoint(host, port, security, None if ca is None else ca.read_text())
        report = examine(
            Door(protocol, endpoint, timeout),
            login,
            password,
            imap_timeout=timeout,
            connect_timeout=timeout,
            heard=lambda _door, step: heard.append(step),
        )
        assert tuple(heard) == report.steps
        assert password not in repr(report)
        return report

    return looked
