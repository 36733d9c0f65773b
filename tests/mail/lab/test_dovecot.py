"""The private Dovecot: reachable three ways, serving the bytes given, gone without a trace."""

import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from imapclient import IMAPClient
from imapclient.exceptions import LoginError

from lab.apt import ensure_mail_servers
from lab.corpus import small
from lab.ports import port_open, session_members
from lab.servers.certificates import issue
from lab.servers.dovecot import Dovecot, DovecotOptions

ANNA, PASSWORD = "anna@example.org", "pä:ss wörd"


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    ensure_mail_servers()


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot() as server:
        server.add_user(ANNA, PASSWORD)
        yield server


def connect(server: Dovecot, how: str = "plain") -> Any:
    context = ssl.create_default_context(cafile=str(server.ca_file))
    if how == "tls":
        return IMAPClient(server.host, server.imaps_port, ssl=True, ssl_context=context, timeout=10)
    client = IMAPClient(server.host, server.imap_port, ssl=False, timeout=10)
    if how == "starttls":
        client.starttls(context)
    return client


@pytest.mark.parametrize("how", ["plain", "starttls", "tls"])
def test_login(dovecot: Dovecot, how: str) -> None:
    with connect(dovecot, how) as client:
        client.plain_login(ANNA, PASSWORD)

        assert b"UIDPLUS" in client.capabilities()
        assert b"CONDSTORE" in client.capabilities()


def test_a_wrong_password_is_refused(dovecot: Dovecot) -> None:
    with connect(dovecot) as client, pytest.raises(LoginError):
        client.plain_login(ANNA, "other")


def test_a_stranger_to_the_authority_does_not_trust_it(dovecot: Dovecot) -> None:
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLCertVerificationError):
        IMAPClient(dovecot.host, dovecot.imaps_port, ssl=True, ssl_context=context, timeout=10)


def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    certificate = issue(tmp_path, ("elsewhere.example",))
    with Dovecot(certificate=certificate) as server, pytest.raises(ssl.SSLCertVerificationError):
        connect(server, "tls")


def test_special_folders_are_there(dovecot: Dovecot) -> None:
    with connect(dovecot) as client:
        client.plain_login(ANNA, PASSWORD)
        uses = {name: flags for flags, _, name in client.list_folders()}

    assert {"INBOX", "Sent", "Drafts", "Trash", "Junk", "Archive"} <= uses.keys()
    assert b"\\Sent" in uses["Sent"]
    assert b"\\Trash" in uses["Trash"]


@pytest.mark.parametrize("folder", ["INBOX", "Sent", "Grüße/unten"])
def test_delivered_files_are_served_with_the_bytes_given(dovecot: Dovecot, folder: str) -> None:
    odd = b"Subject: odd\0\r\n\r\nbare\rCR, CRCRLF\r\r\n8-bit \xe4\xff\r\n.\r\n"
    messages = [*small(120, seed=3), odd]
    for message in messages:
        dovecot.deliver(ANNA, message, folder)

    with connect(dovecot) as client:
        client.plain_login(ANNA, PASSWORD)
        client.select_folder(folder, readonly=True)
        fetched = client.fetch(client.search(), ["BODY.PEEK[]", "RFC822.SIZE"])

    served = [hashlib.sha256(fetched[at][b"BODY[]"]).hexdigest() for at in sorted(fetched)]
    assert served == dovecot.maildir(ANNA).digests(folder)
    assert served[:-1] == [
        hashlib.sha256(message.replace(b"\0", b"\x80")).hexdigest() for message in messages[:-1]
    ]
    assert all(len(item[b"BODY[]"]) == item[b"RFC822.SIZE"] for item in fetched.values())


def test_an_appended_message_is_found_in_the_files(dovecot: Dovecot) -> None:
    message = b"From: a@x.example\r\nSubject: appended\r\n\r\nbody\r\n"
    with connect(dovecot) as client:
        client.plain_login(ANNA, PASSWORD)
        client.append("Archive", message)

    assert dovecot.maildir(ANNA).digests("Archive") == [hashlib.sha256(message).hexdigest()]


def test_uidvalidity_is_set_and_reset(dovecot: Dovecot) -> None:
    dovecot.deliver(ANNA, b"Subject: x\r\n\r\n", "Drafts")
    dovecot.set_uidvalidity(ANNA, "Drafts", 4242)
    assert _uidvalidity(dovecot, "Drafts") == 4242

    dovecot.reset_uidvalidity(ANNA, "Drafts")
    assert _uidvalidity(dovecot, "Drafts") == 4243


def test_many_connections_of_one_user_in_few_processes() -> None:
    with Dovecot(options=DovecotOptions(imap_client_limit=40, lmtp=False)) as server:
        server.add_user(ANNA, PASSWORD)
        clients = [connect(server) for _ in range(60)]
        for client in clients:
            client.plain_login(ANNA, PASSWORD)

        assert len(server.processes()) < 20
        for client in clients:
            client.logout()


def test_stop_leaves_no_process_no_port_and_close_no_file(tmp_path: Path) -> None:
    server = Dovecot(tmp_path).start()
    server.add_user(ANNA, PASSWORD)
    held = connect(server)
    held.plain_login(ANNA, PASSWORD)
    session, ports, tree = server.pid, (server.imap_port, server.imaps_port), server.tree
    assert session is not None
    assert len(session_members(session)) > 3

    server.stop()
    assert session_members(session) == []
    assert not any(port_open(server.host, port) for port in ports)
    held.shutdown()

    server.start()
    assert port_open(server.host, ports[0])
    server.close()
    assert not tree.exists()


def _uidvalidity(server: Dovecot, folder: str) -> int:
    with connect(server) as client:
        client.plain_login(ANNA, PASSWORD)
        status = client.folder_status(folder, ["UIDVALIDITY"])
    return int(status[b"UIDVALIDITY"])
