"""The session against a real Dovecot; digests come from the server's own files."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.corpus import generate
from lab.servers.certificates import issue
from lab.servers.dovecot import Dovecot
from tasks.wire import net
from tasks.wire.imap import FolderUnavailable, ImapSession, LoginRefused, wire_name

ANNA, PASSWORD = "anna@example.org", 'pä"ss wörd\\'
COUNT = 300


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot() as server:
        server.add_user(ANNA, PASSWORD)
        for number, content in enumerate(generate(COUNT, mean_size=12_000)):
            server.deliver(ANNA, content, received=1_700_000_000 + number)
        yield server


def connect(
    dovecot: Dovecot,
    security: net.Security = net.Security.TLS,
    password: str = PASSWORD,
    ca: Path | None = None,
    host: str = "127.0.0.1",
) -> ImapSession:
    """A session of Anna's."""
    port = dovecot.imaps_port if security is net.Security.TLS else dovecot.imap_port
    endpoint = net.Endpoint(host, port, security, (ca or dovecot.ca_file).read_text())
    return ImapSession.open(endpoint, ANNA, password, timeout=20, connect_timeout=5)


@pytest.mark.parametrize("security", list(net.Security))
def test_every_message_comes_with_its_bytes(dovecot: Dovecot, security: net.Security) -> None:
    with connect(dovecot, security) as session:
        selected = session.select(b"INBOX")
        found = list(session.fetch(range(COUNT, 0, -1), max_bytes=100_000_000))

    assert selected.messages == COUNT
    assert selected.uidnext == COUNT + 1
    digests = Counter(hashlib.sha256(message.body or b"").hexdigest() for message in found)
    assert digests == Counter(dovecot.maildir(ANNA).digests())
    assert {message.uid for message in found} == set(range(1, COUNT + 1))
    assert {message.internal_at for message in found} == {
        datetime.fromtimestamp(1_700_000_000 + number, UTC) for number in range(COUNT)
    }
    assert all(message.size == len(message.body or b"") for message in found)


def test_headers_alone_are_the_head_of_the_message(dovecot: Dovecot) -> None:
    with connect(dovecot) as session:
        session.select(b"INBOX")
        whole = {message.uid: message.body or b"" for message in session.fetch([1, 2, 3], max_bytes=10**8)}
        heads = list(session.fetch([1, 2, 3], max_bytes=10**8, headers_only=True))

    assert len(heads) == 3
    assert all(head.body and whole[head.uid].startswith(head.body) for head in heads)


@pytest.mark.parametrize("security", list(net.Security))
def test_a_wrong_password_is_refused(dovecot: Dovecot, security: net.Security) -> None:
    with pytest.raises(LoginRefused) as caught:
        connect(dovecot, security, password="hunter2-wrong")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("security", [net.Security.TLS, net.Security.STARTTLS])
def test_a_certificate_that_cannot_be_trusted_is_refused(
    dovecot: Dovecot, security: net.Security, tmp_path: Path
) -> None:
    with pytest.raises(net.TlsFailed) as caught:
        connect(dovecot, security, ca=issue(tmp_path / "other").ca_file)
    assert caught.value.certificate is net.CertificateFault.ISSUER


def test_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    # Given a server whose certificate is for another name
    with Dovecot(certificate=issue(tmp_path / "tls", names=("elsewhere.example",))) as server:
        server.add_user(ANNA, PASSWORD)
        with pytest.raises(net.TlsFailed) as caught:
            connect(server)
    assert caught.value.certificate is net.CertificateFault.HOST_NAME


def test_folders_have_names_and_uses(dovecot: Dovecot) -> None:
    name = wire_name("Entwürfe & Ähnliches")
    with connect(dovecot) as session:
        session.create(name)
        session.create(name)
        folders = {folder.name: folder for folder in session.folders()}
        status = session.status([folder.wire_name for folder in folders.values()] + [b"Nowhere"])

    assert folders["Sent"].special_use == "\\Sent"
    assert folders["Entwürfe & Ähnliches"].wire_name == name
    assert status[b"INBOX"].messages == COUNT
    assert status[name].messages == 0
    assert b"Nowhere" not in status


def test_an_appended_message_is_where_it_was_said_to_be(dovecot: Dovecot) -> None:
    content = b"Message-ID: <one@x>\r\nSubject: a\r\n\r\nbody\xff\r\n.\r\n"
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    with connect(dovecot) as session:
        told = session.append(b"Sent", content, ["\\Seen", "$Mine"], at)
        selected = session.select(b"Sent")
        (message,) = session.fetch(session.search_message_id("<one@x>"), max_bytes=1000)
        session.unselect()
        with pytest.raises(FolderUnavailable):
            session.append(b"Nowhere", content, [], None)
        assert session.alive

    assert told == (selected.uidvalidity, message.uid)
    assert (message.body, message.internal_at) == (content, at)
    assert message.flags == ("$Mine", "\\Seen")


def test_changed_since_tells_only_what_changed(dovecot: Dovecot) -> None:
    with connect(dovecot) as session:
        before = session.select(b"INBOX").highestmodseq
        assert before is not None
        dovecot.admin("flags", "add", "-u", ANNA, "\\Flagged", "mailbox", "INBOX", "uid", "7")
        session.select(b"INBOX")
        changed = list(session.flags([(1, 4_294_967_295)], changed_since=before))
        everything = list(session.flags([(1, 4_294_967_295)]))

    assert [(seen.uid, seen.flags) for seen in changed] == [(7, ("\\Flagged",))]
    assert len(everything) == COUNT


def test_the_steps_are_told_with_their_times(dovecot: Dovecot) -> None:
    told: list[str] = []
    endpoint = net.Endpoint(
        "127.0.0.1", dovecot.imap_port, net.Security.STARTTLS, dovecot.ca_file.read_text()
    )
    with ImapSession.open(
        endpoint, ANNA, PASSWORD, timeout=20, connect_timeout=5, steps=lambda step, seconds: told.append(step)
    ) as session:
        session.select(b"INBOX")

    assert told == ["resolve", "connect", "greeting", "starttls", "login", "select"]
