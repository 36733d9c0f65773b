"""The session against an SMTP server that others wrote: aiosmtpd, with STARTTLS and a login."""

import ssl
from collections.abc import Iterator

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from aiosmtpd.smtp import Envelope as Received

from lab.ports import free_port
from lab.servers.certificates import Certificate
from tasks.wire.net import Budget, Endpoint, Security
from tasks.wire.smtp import Envelope, Outcome, SessionFailed, SmtpSession

PASSWORD = "gr\u00fcn \u2713 password"


class Inbox:
    """Keeps what arrives, refuses one recipient."""

    def __init__(self) -> None:
        self.messages: list[tuple[list[str], bytes]] = []

    async def handle_RCPT(
        self, server: object, session: object, envelope: Received, address: str, options: list[str]
    ) -> str:
        if address.startswith("nobody@"):
            return "550 5.1.1 No such user"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: object, session: object, envelope: Received) -> str:
        assert isinstance(envelope.content, bytes)
        self.messages.append((list(envelope.rcpt_tos), envelope.content))
        return "250 2.0.0 Ok"


def check(server: object, session: object, envelope: object, mechanism: str, data: object) -> AuthResult:
    assert isinstance(data, LoginPassword)
    right = data == LoginPassword(b"anna@example.org", PASSWORD.encode())
    return AuthResult(success=right, handled=right)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def where(inbox: Inbox, certificate: Certificate) -> Iterator[Endpoint]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain_file, certificate.key_file)
    port = free_port()
    controller = Controller(
        inbox,
        hostname="127.0.0.1",
        port=port,
        tls_context=context,
        require_starttls=True,
        authenticator=check,
        auth_required=True,
        enable_SMTPUTF8=True,
    )
    controller.start()
    yield Endpoint("localhost", port, Security.STARTTLS, certificate.ca_file.read_text())
    controller.stop()


def test_a_message_of_odd_lines_arrives_as_it_is(where: Endpoint, inbox: Inbox) -> None:
    session = SmtpSession.open(where, "anna@example.org", PASSWORD, Budget(20))
    envelope = Envelope("anna@example.org", ("ben@example.org", "nobody@example.org"), eight_bit=True)
    delivery = session.send(envelope, b"Subject: x\n\n.\n..a\r\n\xe4\n.", Budget(20))
    session.close()

    assert delivery.outcome is Outcome.SENT
    assert [result.outcome for result in delivery.recipients] == [Outcome.SENT, Outcome.FAILED]
    assert inbox.messages == [
        (["ben@example.org"], b"Subject: x\r\n\r\n.\r\n..a\r\n\xe4\r\n.\r\n"),
    ]


def test_a_wrong_password_is_refused(where: Endpoint) -> None:
    with pytest.raises(SessionFailed) as failed:
        SmtpSession.open(where, "anna@example.org", "wrong", Budget(20))

    assert failed.value.login_refused


def test_without_starttls_it_takes_no_mail(where: Endpoint) -> None:
    plain = Endpoint(where.host, where.port, Security.NONE)
    with pytest.raises(SessionFailed, match="offers no login"):
        SmtpSession.open(plain, "anna@example.org", PASSWORD, Budget(20))
