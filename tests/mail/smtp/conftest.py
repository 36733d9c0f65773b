"""A certificate for the lab's servers, and a way to open a session to one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.servers.certificates import Certificate, issue
from lab.servers.smtp_faults import FaultySmtp
from tasks.wire.net import Budget, Endpoint, Security
from tasks.wire.smtp import SmtpSession


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return issue(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def other_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return issue(tmp_path_factory.mktemp("other-tls"), ("other.example",))


def endpoint(server: FaultySmtp, security: Security, ca: Path | None = None) -> Endpoint:
    return Endpoint(server.host, server.port, security, ca.read_text() if ca else None)


Open = Callable[..., SmtpSession]


@pytest.fixture
def open_session(certificate: Certificate) -> Open:
    """Open a session to a faulty server, logged in, with a waiting budget in seconds."""

    def opened(
        server: FaultySmtp,
        security: Security = Security.NONE,
        seconds: float = 20.0,
        budget: Budget | None = None,
    ) -> SmtpSession:
        return SmtpSession.open(
            endpoint(server, security, certificate.ca_file),
            "anna@example.org",
            "open sesame",
            budget or Budget(seconds),
        )

    return opened
