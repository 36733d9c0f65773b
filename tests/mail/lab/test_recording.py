"""The recording server: what it lists is exactly what it took, whatever clients do."""

import hashlib
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.ports import port_open, wait_until
from lab.servers.certificates import Certificate, issue
from lab.servers.recording import Behaviour, RecordingSmtp

MESSAGE = (
    b"From: a@x.example\r\nMessage-ID: <1@x.example>\r\nX-Mailwright-Attempt:\r\n attempt-7\r\n"
    b"Subject: hi\r\n\r\n.dot first\r\nbody\r\n"
)


@pytest.fixture
def server() -> Iterator[RecordingSmtp]:
    with RecordingSmtp(keep=True) as running:
        yield running


def send(
    server: RecordingSmtp, to: list[str] | None = None, data: bytes = MESSAGE
) -> dict[str, tuple[int, bytes]]:
    with smtplib.SMTP(server.host, server.port, timeout=10) as client:
        client.login("anna", "pw")
        return client.sendmail("a@x.example", to or ["b@y.example"], data)


def test_an_accepted_message_is_listed_with_what_identifies_it(server: RecordingSmtp) -> None:
    send(server, ["b@y.example", "c@y.example"])

    (accepted,) = server.accepted()
    assert accepted.mail_from == "a@x.example"
    assert accepted.recipients == ("b@y.example", "c@y.example")
    assert accepted.message_id == "<1@x.example>"
    assert accepted.attempt == "attempt-7"
    assert accepted.sha256 == hashlib.sha256(MESSAGE).hexdigest()
    assert server.message(accepted.sha256) == MESSAGE


def test_a_header_quoted_in_the_body_is_not_taken_for_one(server: RecordingSmtp) -> None:
    send(server, data=b"Subject: x\r\n\r\nMessage-ID: <no@x>\r\n")

    assert server.accepted()[0].message_id == ""


def test_a_pipelined_envelope_and_an_empty_message(server: RecordingSmtp) -> None:
    with socket.create_connection((server.host, server.port), 10) as client:
        client.sendall(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n.\r\nQUIT\r\n")
        replies = client.makefile("rb").read()

    assert replies.endswith(b"354 end with a dot\r\n250 2.0.0 accepted\r\n221 2.0.0 bye\r\n")
    assert server.accepted()[0].size == 0


def test_recipients_are_refused_by_pattern(server: RecordingSmtp) -> None:
    server.behaviour = Behaviour(recipients={"gone@*": "550 5.1.1 gone", "*@full.example": "452 4.2.2 full"})

    refused = send(server, ["gone@y.example", "b@full.example", "c@y.example"])

    assert refused == {"gone@y.example": (550, b"5.1.1 gone"), "b@full.example": (452, b"4.2.2 full")}
    assert server.accepted()[0].recipients == ("c@y.example",)


def test_a_refusal_after_the_dot_is_not_recorded(server: RecordingSmtp) -> None:
    server.behaviour = Behaviour(final_reply="451 4.3.0 later")

    with pytest.raises(smtplib.SMTPDataError, match="451"):
        send(server)

    assert server.accepted() == []


@pytest.mark.parametrize(
    ("behaviour", "recorded"),
    [(Behaviour(hang_up_after_dot=1.0), 1), (Behaviour(lose_after_dot=1.0), 0)],
    ids=["taken but not said", "lost"],
)
def test_hanging_up_after_the_dot(server: RecordingSmtp, behaviour: Behaviour, recorded: int) -> None:
    server.behaviour = behaviour

    with pytest.raises(smtplib.SMTPServerDisconnected):
        send(server)

    assert len(server.accepted()) == recorded


def test_a_wrong_password_and_a_bare_line_feed_are_refused(server: RecordingSmtp) -> None:
    server.behaviour = Behaviour(passwords={"anna": "other"})
    with pytest.raises(smtplib.SMTPAuthenticationError):
        send(server)

    with socket.create_connection((server.host, server.port), 10) as client:
        client.sendall(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@y>\r\nDATA\r\nSubject: a\nb\r\n.\r\nQUIT\r\n")
        assert b"550 5.6.11" in client.makefile("rb").read()
    assert server.accepted() == []


def test_a_client_killed_in_mid_data_leaves_nothing_recorded(server: RecordingSmtp) -> None:
    """Its process is killed for real, with half a message on the wire."""
    script = (
        "import smtplib, sys, time\n"
        f"c = smtplib.SMTP({server.host!r}, {server.port}); c.ehlo(); c.mail('a@x'); c.rcpt('b@y')\n"
        "c.docmd('DATA'); c.send(b'Message-ID: <half@x>\\r\\n\\r\\nhalf\\r\\n')\n"
        "print('on the wire', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.readline()
        assert server.in_data == 1
        client.send_signal(signal.SIGKILL)

    wait_until(lambda: server.sessions_now == 0, 10, "the session ended")
    assert server.accepted() == []
    assert server.in_data == 0


def test_a_message_is_recorded_before_its_reply(server: RecordingSmtp) -> None:
    server.behaviour = Behaviour(pause_after_dot=(30.0, 30.0))

    with socket.create_connection((server.host, server.port), 10) as client:
        client.sendall(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@y>\r\nDATA\r\nMessage-ID: <1@x>\r\n\r\n.\r\n")
        wait_until(lambda: len(server.accepted()) == 1, 10, "recorded while the client waits")
        client.setblocking(False)
        assert b"accepted" not in client.recv(4096)


def test_sessions_are_counted_and_a_stopped_server_leaves_no_port(tmp_path: Path) -> None:
    server = RecordingSmtp(directory=tmp_path).start()
    held = [smtplib.SMTP(server.host, server.port, timeout=10) for _ in range(3)]
    port = server.port

    assert (server.sessions_now, server.sessions_peak) == (3, 3)
    server.stop()
    assert not port_open(server.host, port)
    for client in held:
        client.close()

    server.start()
    assert server.port == port
    server.close()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return issue(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("wrapped", [False, True], ids=["STARTTLS", "TLS"])
def test_tls_with_verification(certificate: Certificate, wrapped: bool) -> None:
    context = ssl.create_default_context(cafile=str(certificate.ca_file))
    with RecordingSmtp(certificate=certificate, tls=wrapped) as server:
        if wrapped:
            client: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, timeout=10, context=context)
        else:
            client = smtplib.SMTP(server.host, server.port, timeout=10)
            client.starttls(context=context)
        with client:
            client.sendmail("a@x.example", ["b@y.example"], MESSAGE)

        assert len(server.accepted()) == 1
