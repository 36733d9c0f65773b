"""Following a mailbox on a real Dovecot: what lies there is what Postgres has."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from imapclient import IMAPClient
from sqlalchemy import text

from lab.corpus import generate, small
from lab.servers.dovecot import Dovecot
from lab.servers.maildir import digest
from lab.world import Ports, add_mailbox, add_provider, sync_now
from tasks.runtime import Runtime
from tests.mail.conftest import Account


@pytest.fixture
def mailbox(runtime: Runtime, dovecot: Dovecot, account: Account) -> int:
    """A mailbox of ours on a fresh Dovecot account."""
    provider = add_provider(runtime, Ports(imap=dovecot.imap_port))
    return add_mailbox(runtime, provider, account.address, account.password)


@pytest.fixture
def rows(runtime: Runtime) -> Callable[..., list[Any]]:
    """Ask the database."""

    def ask(statement: str, **parameters: object) -> list[Any]:
        with runtime.db.begin() as session:
            return list(session.execute(text(statement), parameters).all())

    return ask


def client(dovecot: Dovecot, account: Account) -> IMAPClient:
    """A mail program's view of the account."""
    session = IMAPClient("127.0.0.1", dovecot.imap_port, ssl=False)
    session.login(account.address, account.password)
    return session


def on_server(dovecot: Dovecot, account: Account, folder: str = "INBOX") -> Counter[str]:
    """Digests of the files in a folder, as IMAP serves them."""
    return Counter(digest(path.read_bytes()) for path in dovecot.files(account.address, folder))


def in_database(rows: Callable[..., list[Any]], folder: str = "INBOX") -> Counter[str]:
    """Digests of the raw bytes stored for a folder's places."""
    return Counter(
        row.digest
        for row in rows(
            "SELECT encode(sha256(r.raw), 'hex') AS digest FROM mailwright.places p "
            "JOIN mailwright.folder_epochs e ON e.id = p.epoch_id AND e.state = 'current' "
            "JOIN mailwright.folders f ON f.id = e.folder_id "
            "JOIN mailwright.raw_messages r ON r.message_id = p.message_id WHERE f.name = :folder",
            folder=folder,
        )
    )


def events(rows: Callable[..., list[Any]]) -> Counter[str]:
    """How many events of each type were committed."""
    return Counter(row.type for row in rows("SELECT type FROM mailwright.events_pending"))


def test_every_message_is_stored_byte_for_byte_and_history_is_not_announced(
    runtime: Runtime, dovecot: Dovecot, account: Account, mailbox: int, rows: Callable[..., list[Any]]
) -> None:
    for raw in generate(300, seed=1, mean_size=8_000):
        dovecot.deliver(account.address, raw, received=1_600_000_000)

    sync_now(runtime, mailbox)

    assert in_database(rows) == on_server(dovecot, account)
    assert events(rows)["message.received"] == 0
    assert rows("SELECT uids::text FROM mailwright.folder_epochs WHERE messages > 0")[0].uids == "{[1,301)}"


def test_new_mail_is_announced_once(
    runtime: Runtime, dovecot: Dovecot, account: Account, mailbox: int, rows: Callable[..., list[Any]]
) -> None:
    sync_now(runtime, mailbox)
    for raw in small(10, seed=2):
        dovecot.deliver(account.address, raw)

    sync_now(runtime, mailbox, passes=3)

    assert events(rows)["message.received"] == 10
    assert in_database(rows) == on_server(dovecot, account)


def test_flags_and_expunges_are_followed(
    runtime: Runtime, dovecot: Dovecot, account: Account, mailbox: int, rows: Callable[..., list[Any]]
) -> None:
    for raw in small(20, seed=3):
        dovecot.deliver(account.address, raw)
    sync_now(runtime, mailbox)
    with client(dovecot, account) as program:
        program.select_folder("INBOX")
        program.set_flags([1, 2, 3], [b"\\Seen", b"\\Flagged"])
        program.set_flags([5, 6], [b"\\Deleted"])
        program.expunge()

    sync_now(runtime, mailbox, passes=2)

    stored = {row.imap_uid: tuple(row.flags) for row in rows("SELECT imap_uid, flags FROM mailwright.places")}
    assert set(stored) == set(range(1, 21)) - {5, 6}
    assert {uid for uid, flags in stored.items() if flags == ("\\Flagged", "\\Seen")} == {1, 2, 3}
    assert events(rows)["message.flags_changed"] == 3
    assert events(rows)["message.deleted"] == 2


def test_flags_and_expunges_are_found_without_condstore(
    runtime: Runtime, dovecot: Dovecot, account: Account, rows: Callable[..., list[Any]]
) -> None:
    provider = add_provider(runtime, Ports(imap=dovecot.imap_port), trust_condstore=False)
    mailbox = add_mailbox(runtime, provider, account.address, account.password)
    for raw in small(20, seed=4):
        dovecot.deliver(account.address, raw)
    sync_now(runtime, mailbox)
    with client(dovecot, account) as program:
        program.select_folder("INBOX")
        program.set_flags([7], [b"\\Answered"])
        program.set_flags([8], [b"\\Deleted"])
        program.expunge()
        program.append("INBOX", next(small(1, seed=5)))

    sync_now(runtime, mailbox, passes=2)

    assert events(rows)["message.flags_changed"] == 1
    assert events(rows)["message.deleted"] == 1
    assert in_database(rows) == on_server(dovecot, account)


def test_a_moved_message_stays_one_message(
    runtime: Runtime, dovecot: Dovecot, account: Account, mailbox: int, rows: Callable[..., list[Any]]
) -> None:
    for raw in small(3, seed=6):
        dovecot.deliver(account.address, raw)
    sync_now(runtime, mailbox)
    before = rows("SELECT uid FROM mailwright.messages ORDER BY id")
    with client(dovecot, account) as program:
        program.select_folder("INBOX")
        program.move([2], "Trash")

    sync_now(runtime, mailbox, passes=2)

    assert rows("SELECT uid FROM mailwright.messages ORDER BY id") == before
    assert events(rows)["message.deleted"] == 0
    assert events(rows)["message.received"] == 3
    assert events(rows)["message.moved"] >= 1
    assert in_database(rows, "Trash") == on_server(dovecot, account, "Trash")


def test_a_new_uidvalidity_announces_nothing_again(
    runtime: Runtime, dovecot: Dovecot, account: Account, mailbox: int, rows: Callable[..., list[Any]]
) -> None:
    for raw in generate(50, seed=7, mean_size=4_000):
        dovecot.deliver(account.address, raw)
    sync_now(runtime, mailbox)
    announced = events(rows)["message.received"]
    before = {row.uid for row in rows("SELECT uid FROM mailwright.messages")}
    dovecot.reset_uidvalidity(account.address)

    sync_now(runtime, mailbox, passes=3)

    assert {row.uid for row in rows("SELECT uid FROM mailwright.messages WHERE state = 'present'")} == before
    assert events(rows)["folder.reset"] == 1
    assert events(rows)["message.received"] == announced == 50
    assert events(rows)["message.deleted"] == 0
    assert in_database(rows) == on_server(dovecot, account)


def test_replies_share_a_thread_whatever_the_order_they_are_read_in(
    runtime: Runtime, dovecot: Dovecot, account: Account, mailbox: int, rows: Callable[..., list[Any]]
) -> None:
    for number, refers in enumerate(["", "<m0@x>", "<m0@x> <m1@x>"]):
        header = f"References: {refers}\r\n" if refers else ""
        raw = f"Message-ID: <m{number}@x>\r\n{header}Subject: Hello\r\n\r\nText {number}\r\n"
        dovecot.deliver(account.address, raw.encode())

    sync_now(runtime, mailbox)

    assert len({row.thread_id for row in rows("SELECT thread_id FROM mailwright.messages")}) == 1


def test_a_vanished_folder_says_so_and_its_mail_is_deleted(
    runtime: Runtime, dovecot: Dovecot, account: Account, mailbox: int, rows: Callable[..., list[Any]]
) -> None:
    with client(dovecot, account) as program:
        program.create_folder("Projekte/Überblick")
        program.append("Projekte/Überblick", next(small(1, seed=8)))
        sync_now(runtime, mailbox)
        assert in_database(rows, "Projekte/Überblick").total() == 1
        program.delete_folder("Projekte/Überblick")

    sync_now(runtime, mailbox, passes=2)

    assert events(rows)["folder.vanished"] >= 1
    assert events(rows)["message.deleted"] == 1
