"""Large messages lie in files: what a process needs of memory does not grow with them."""

import os
from base64 import encodebytes
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import islice

import pytest

from config.settings import Settings
from lab.servers.dovecot import Dovecot
from lab.world import Ports, add_mailbox, add_provider
from tasks.runtime import Runtime
from tests.mail.conftest import Account
from tests.mail.sync.conftest import Followed
from tests.mail.sync.test_memory import most_memory

LARGE = 60 * 10**6
MOST = 150 * 1024  # KiB


Here = Callable[[Account], Followed]


@pytest.fixture
def here(runtime: Runtime, dovecot: Dovecot) -> Here:
    """Add the mailbox of an account."""
    provider = add_provider(runtime, Ports(imap=dovecot.imap_port))

    def add(account: Account) -> Followed:
        mailbox = add_mailbox(runtime, provider, account.address, account.password)
        return Followed(runtime, None, mailbox)  # type: ignore[arg-type]

    return add


def attached(size: int) -> bytes:
    """One attachment of random bytes in base64, ``size`` bytes as a message."""
    head = (
        b"From: anna@test.example\r\nSubject: large\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: application/octet-stream; name=large.bin\r\n"
        b"Content-Disposition: attachment; filename=large.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    return head + encodebytes(os.urandom(size * 57 // 78)).replace(b"\n", b"\r\n")


def written(size: int) -> bytes:
    """One text, quoted-printable, and its HTML, each half of ``size``."""
    lines = b"Gr=C3=BC=C3=9Fe aus M=C3=BCnchen, und noch mehr W=C3=B6rter in dieser Zeile.\r\n"
    half = lines * (size // 2 // len(lines))
    part = (
        b"--b\r\nContent-Type: text/%s; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    )
    return (
        b"From: anna@test.example\r\nSubject: long\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/alternative; boundary=b\r\n\r\n"
        + part % b"plain"
        + half
        + part % b"html"
        + half
        + b"--b--\r\n"
    )


def test_large_messages_are_stored_whole_in_little_memory(
    here: Here, settings: Settings, dovecot: Dovecot, account: Account
) -> None:
    delivered = set()
    for mail in (attached(LARGE), written(LARGE), *(attached(LARGE // 4) for _ in range(4))):
        dovecot.deliver(account.address, mail)
        delivered.add((len(mail), sha256(mail).digest()))
    ours = here(account)

    most = most_memory(settings)

    rows = ours.rows("SELECT sha256(raw) AS digest, length(raw) AS size FROM mailwright.raw_messages")
    assert {(row.size, row.digest) for row in rows} == delivered
    (text,) = ours.rows("SELECT * FROM mailwright.messages WHERE subject = 'long'")
    assert text.body_text == text.body_html
    assert text.defects == ["text-truncated"]
    assert len(text.body_text) == 2**20
    assert most < MOST, most


def test_many_large_messages_at_once_take_little_more(
    here: Here, settings: Settings, dovecot: Dovecot, accounts: Iterator[Account]
) -> None:
    mails = [written(10**7), *(attached(3 * 10**6) for _ in range(5))]
    for account in islice(accounts, 6):
        for mail in mails:
            dovecot.deliver(account.address, mail)
        ours = here(account)

    most = most_memory(settings)

    (stored,) = ours.rows("SELECT count(*) AS n FROM mailwright.raw_messages")
    assert stored.n == 6 * len(mails)
    assert most < MOST, most


def test_a_message_that_finds_no_room_waits_alone_until_there_is(
    here: Here, settings: Settings, dovecot: Dovecot, account: Account
) -> None:
    mails = dict(enumerate((attached(10**4), attached(8 * 10**6), attached(2 * 10**4)), start=1))
    for mail in mails.values():
        dovecot.deliver(account.address, mail)
    ours = here(account)

    most_memory(settings, str(6 * 10**6))  # the file of the second is refused on the way

    assert ours.stored() == {uid: mail for uid, mail in mails.items() if uid != 2}
    assert "A message of 8000" in ours.folder("INBOX").last_error
    assert ours.events()["message.unreadable"] == 0
    ours.sync()
    assert ours.stored() == mails
