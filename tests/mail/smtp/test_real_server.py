"""The session against the lab's real mail server: Postfix as root, aiosmtpd elsewhere."""

from collections.abc import Iterator

import pytest

from lab.ports import wait_until
from lab.servers import start_mail
from lab.servers.mail import Mail
from tasks.wire.net import Budget, Endpoint, Security
from tasks.wire.smtp import Envelope, Outcome, SessionFailed, SmtpSession

ANNA, BEN, NOBODY = "anna@example.org", "ben@example.org", "nobody@example.org"
PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def mail() -> Iterator[Mail]:
    server = start_mail(None, {ANNA: PASSWORD, BEN: PASSWORD}, ["example.org"])
    try:
        yield server
    finally:
        server.stop()


def open_session(mail: Mail, password: str = PASSWORD) -> SmtpSession:
    where = Endpoint(mail.smtp_host, mail.smtp_port, Security(mail.smtp_security), mail.ca_file.read_text())
    return SmtpSession.open(where, ANNA, password, Budget(40))


def test_messages_arrive_over_one_held_connection(mail: Mail) -> None:
    message = b"From: %s\nTo: %s\nSubject: \xe4\n\n.\n..\n\xff\nend" % (ANNA.encode(), BEN.encode())
    before = len(mail.stored(BEN))
    session = open_session(mail)
    first = session.send(Envelope(ANNA, (BEN, NOBODY), eight_bit=True), message, Budget(40))
    refused = session.send(Envelope(ANNA, (NOBODY,), eight_bit=True), message, Budget(40))
    assert session.usable
    second = session.send(Envelope(ANNA, (BEN,), eight_bit=True), message, Budget(40))
    session.close()

    assert [result.outcome for result in first.recipients] == [Outcome.SENT, Outcome.FAILED]
    assert refused.outcome is Outcome.FAILED
    assert second.outcome is Outcome.SENT
    wait_until(lambda: len(mail.stored(BEN)) == before + 2, 30, "two messages delivered")


def test_a_wrong_password_is_refused(mail: Mail) -> None:
    with pytest.raises(SessionFailed) as failed:
        open_session(mail, "wrong password")

    assert failed.value.login_refused
    assert "wrong password" not in str(failed.value)
