"""The private Postfix: what is sent to it lies in the Maildir; nothing else leaves or stays."""

import os
import smtplib
import ssl
from collections.abc import Iterator

import pytest

from lab.apt import ensure_mail_servers
from lab.ports import port_open, session_members, wait_until
from lab.servers.debian import DebianMail
from lab.servers.postfix import PostfixOptions

ANNA, BOB, LATE = "anna@example.org", "bob@example.org", "late@example.org"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="Postfix starts only as root")


@pytest.fixture(scope="module")
def mail() -> Iterator[DebianMail]:
    ensure_mail_servers()
    users = {ANNA: "pw", BOB: "pw2"}
    running = DebianMail(None, users, ["example.org"], postfix=PostfixOptions(message_size_limit=100_000))
    try:
        yield running
    finally:
        running.stop()


def connect(mail: DebianMail, how: str) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=str(mail.ca_file))
    if how == "tls":
        return smtplib.SMTP_SSL(mail.smtp_host, mail.postfix.smtps_port, timeout=10, context=context)
    client = smtplib.SMTP(mail.smtp_host, mail.smtp_port, timeout=10)
    if how == "starttls":
        client.starttls(context=context)
    return client


@pytest.mark.parametrize("how", ["plain", "starttls", "tls"])
def test_what_is_sent_with_auth_arrives_in_the_maildir(mail: DebianMail, how: str) -> None:
    before = len(mail.stored(BOB))
    message = f"From: {ANNA}\r\nMessage-ID: <{how}@example.org>\r\n\r\n.by {how}\r\n".encode()
    with connect(mail, how) as client:
        client.login(ANNA, "pw")
        assert client.sendmail(ANNA, [BOB], message) == {}

    wait_until(lambda: len(mail.stored(BOB)) == before + 1, 20, "arrived")
    text = mail.dovecot.files(BOB)[-1].read_bytes()
    assert f"Message-ID: <{how}@example.org>".encode() in text
    assert text.endswith(f"\n.by {how}\n".encode())


def test_a_wrong_password_is_refused(mail: DebianMail) -> None:
    with connect(mail, "tls") as client, pytest.raises(smtplib.SMTPAuthenticationError):
        client.login(ANNA, "other")


def test_strangers_and_other_domains_are_refused(mail: DebianMail) -> None:
    with connect(mail, "tls") as client:
        client.login(ANNA, "pw")
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            client.sendmail(ANNA, ["nobody@example.org", "bob@elsewhere.example"], b"x")

    codes = {address: code for address, (code, _) in refused.value.recipients.items()}
    assert codes == {"nobody@example.org": 550, "bob@elsewhere.example": 554}


def test_the_size_limit_is_told_and_kept(mail: DebianMail) -> None:
    with connect(mail, "tls") as client:
        client.login(ANNA, "pw")
        assert client.esmtp_features["size"] == "100000"
        with pytest.raises(smtplib.SMTPSenderRefused, match="552"):
            client.sendmail(ANNA, [BOB], b"x" * 100 + b"\r\n" * 60_000)


def test_a_user_added_late_gets_mail(mail: DebianMail) -> None:
    mail.add_user(LATE, "pw3")

    with connect(mail, "plain") as client:
        client.sendmail("x@elsewhere.example", [LATE], b"Subject: hi\r\n\r\nhi\r\n")
    wait_until(lambda: len(mail.stored(LATE)) == 1, 20, "arrived")
    wait_until(lambda: mail.postfix.queue() == [], 20, "the queue is empty")


def test_stop_leaves_no_process_no_port_and_no_file() -> None:
    mail = DebianMail(None, {ANNA: "pw"}, ["example.org"])
    processes = mail.processes()
    sessions = {os.getsid(process) for process in processes}
    ports = (mail.smtp_port, mail.postfix.smtps_port, mail.imap_port, mail.dovecot.imap_port)
    held = connect(mail, "starttls")
    assert len(sessions) == 2
    assert len(processes) > 5

    mail.stop()

    assert [session_members(session) for session in sessions] == [[], []]
    assert not any(port_open(mail.smtp_host, port) for port in ports)
    assert not mail.dovecot.tree.exists()
    assert not mail.postfix.tree.exists()
    held.close()
    mail.stop()
