"""The whole way with a real Postfix and Dovecot: TLS, AUTH, a bounce that comes back, tied to its message."""

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from lab.apt import ensure_mail_servers
from lab.ports import wait_until
from lab.servers.debian import DebianMail
from lab.world import Ports, add_mailbox, add_provider, sync_now
from tasks import outbound
from tasks.access import SYSTEM
from tasks.runtime import Runtime

ANNA, BOB, GONE = "anna@example.org", "bob@example.org", "gone@example.org"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="Postfix starts only as root")


@pytest.fixture
def mail() -> Iterator[DebianMail]:
    """Two users, and one whom Postfix believes in and Dovecot does not: the bounce is Postfix's own."""
    ensure_mail_servers()
    running = DebianMail(None, {ANNA: "pw", BOB: "pw2"}, ["example.org"])
    try:
        running.add_gone(GONE)
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_a_real_bounce_finds_its_message_and_recipient(
    mail: DebianMail, runtime: Runtime, security: str
) -> None:
    ports = Ports(
        imap=mail.imap_port,
        smtp=mail.postfix.smtps_port if security == "tls" else mail.postfix.smtp_port,
        imap_security=mail.imap_security,
        smtp_security=security,
        ca=mail.ca_file,
    )
    mailbox = add_mailbox(runtime, add_provider(runtime, ports), ANNA, "pw")
    sync_now(runtime, mailbox)
    with runtime.db.begin() as session:
        message = {"to": [BOB, GONE], "subject": "Hello", "text": "Good morning.\n"}
        uid = outbound.enqueue(SYSTEM, session, ANNA, message).uid
    outbound.dispatch(SYSTEM, runtime, 20)
    wait_until(lambda: len(mail.stored(ANNA)) == 1, 30, "the bounce is there")

    sync_now(runtime, mailbox, passes=2)
    outbound.settle_reports(runtime)

    with runtime.db.begin() as session:
        shown = outbound.show(SYSTEM, session, uid)
        report = session.execute(text("SELECT * FROM mailwright.reports")).one()
        (suppressed,) = outbound.suppressed(SYSTEM, session)
    assert len(mail.stored(BOB)) == 1
    assert len(mail.stored(ANNA, "Sent")) == 1
    assert shown["state"] == "sent"
    assert [r["state"] for r in shown["recipients"]] == ["sent", "bounced"]
    assert "5.1.1" in shown["recipients"][1]["reply"]
    assert (suppressed.address, suppressed.mailbox) == (GONE, ANNA)
    attempt = str(shown["attempts"][0]["id"])
    assert (report.attempt, report.settled_at is not None) == (attempt, True)
