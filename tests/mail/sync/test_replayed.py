"""The events of a mailbox, replayed from zero, are what Postgres has, and that is what the server has."""

from collections import Counter
from typing import Any

import pytest
from imapclient import IMAPClient
from sqlalchemy import text

from lab.corpus import small
from lab.crash import rest
from lab.replay import replay
from lab.servers.dovecot import Dovecot
from lab.servers.uidlist import Files
from lab.world import Ports, add_mailbox, add_provider, sync_now
from tasks.runtime import Runtime
from tests.mail.conftest import Account


class Story:
    """A mailbox of ours on a fresh Dovecot account, and a mail program that changes it."""

    def __init__(self, runtime: Runtime, dovecot: Dovecot, account: Account) -> None:
        self.runtime, self.dovecot, self.account = runtime, dovecot, account
        provider = add_provider(runtime, Ports(imap=dovecot.imap_port))
        self.mailbox = add_mailbox(runtime, provider, account.address, account.password)
        self.program = self.log_in()
        self.sync()

    def log_in(self) -> IMAPClient:
        program = IMAPClient("127.0.0.1", self.dovecot.imap_port, ssl=False)
        program.login(self.account.address, self.account.password)
        return program

    def put(self, folder: str, *messages: bytes) -> None:
        for raw in messages:
            self.program.append(folder, raw)

    def reset(self, folder: str = "INBOX") -> None:
        """New UIDs and a new UIDVALIDITY, which ends every session."""
        self.dovecot.reset_uidvalidity(self.account.address, folder)
        self.program = self.log_in()

    def sync(self, passes: int = 1) -> None:
        sync_now(self.runtime, self.mailbox, passes)

    def rows(self, statement: str, **given: object) -> list[Any]:
        with self.runtime.db.begin() as session:
            return list(session.execute(text(statement), given).all())

    def types(self) -> Counter[str]:
        return Counter(event.type for event in rest.events(self.rows, self.mailbox))

    def last(self, kind: str) -> dict[str, Any]:
        found = [event.data for event in rest.events(self.rows, self.mailbox) if event.type == kind]
        return dict(found[-1])

    def assert_one_account(self) -> None:
        """Server, Postgres and events agree."""
        stored = rest.load(self.rows, self.mailbox)
        files = Files(self.dovecot.maildir(self.account.address)).folders()
        replayed = replay(rest.events(self.rows, self.mailbox))
        assert rest.against_server(stored, files) == []
        assert rest.against_events(stored, replayed) == []


@pytest.fixture
def story(runtime: Runtime, dovecot: Dovecot, account: Account) -> Story:
    return Story(runtime, dovecot, account)


def test_flags_moves_copies_and_expunges_can_be_replayed(story: Story) -> None:
    story.put("INBOX", *small(6, seed=71))
    story.sync()
    story.program.select_folder("INBOX")
    story.program.add_flags([1, 2], [b"\\Seen", b"$Label1"])
    story.program.move([2, 3], "Archive")
    story.program.copy([4], "Archive")
    story.program.add_flags([5], [b"\\Deleted"])
    story.program.expunge()

    story.sync(passes=2)

    story.assert_one_account()
    assert story.types()["message.moved"] == 2
    assert story.types()["message.copied"] == 1
    assert story.types()["message.deleted"] == 1


def test_a_move_tells_the_flags_that_the_message_has_in_its_new_place(story: Story) -> None:
    story.put("INBOX", *small(1, seed=72))
    story.sync()
    story.program.select_folder("INBOX")
    story.program.add_flags([1], [b"\\Flagged"])
    story.program.move([1], "Archive")

    story.sync(passes=2)

    assert story.last("message.moved")["flags"] == ["\\Flagged"]
    story.assert_one_account()


def test_flags_that_changed_before_a_folder_was_renumbered_are_told(story: Story) -> None:
    """One message is recognised by its Message-ID, the other, which has none, by its bytes."""
    story.put("INBOX", *small(2, seed=73), b"Subject: nameless\r\n\r\nHello\r\n")
    story.sync()
    story.program.select_folder("INBOX")
    story.program.add_flags([1, 3], [b"\\Seen"])
    story.reset()

    story.sync(passes=2)

    assert story.types()["folder.reset"] == 1
    assert story.types()["message.flags_changed"] == 2
    assert story.types()["message.received"] == 3
    story.assert_one_account()


def test_a_message_that_left_a_folder_before_it_was_renumbered_is_told_of(story: Story) -> None:
    story.put("INBOX", *small(2, seed=74))
    story.sync()
    story.program.select_folder("INBOX")
    story.program.copy([1], "Archive")
    story.sync()
    story.program.add_flags([1], [b"\\Deleted"])
    story.program.expunge()
    story.reset()

    story.sync(passes=2)

    assert story.last("message.moved")["left"] == "INBOX"
    story.assert_one_account()


def test_a_move_back_into_a_folder_renumbered_long_ago_is_a_move(story: Story) -> None:
    story.put("INBOX", *small(2, seed=75))
    story.sync()
    story.reset()
    story.sync(passes=2)
    story.program.select_folder("INBOX")
    story.program.move([1], "Archive")
    story.sync(passes=2)
    story.program.select_folder("Archive")
    story.program.add_flags([1], [b"\\Deleted"])
    (raw,) = story.program.fetch([1], ["BODY.PEEK[]"]).values()
    story.program.expunge()
    story.sync()
    story.put("INBOX", raw[b"BODY[]"])

    story.sync(passes=2)

    assert story.last("message.moved")["folder"] == "INBOX"
    story.assert_one_account()


def test_a_message_that_lay_in_a_vanished_folder_too_is_lost_with_a_renumbered_one(story: Story) -> None:
    story.program.create_folder("Projekt")
    story.put("INBOX", *small(2, seed=76))
    story.sync()
    story.program.select_folder("INBOX")
    story.program.copy([1], "Projekt")
    story.sync(passes=2)
    story.program.delete_folder("Projekt")
    story.sync()
    story.program.select_folder("INBOX")
    story.program.add_flags([1], [b"\\Deleted"])
    story.program.expunge()
    story.reset()

    story.sync(passes=3)

    assert story.types()["message.deleted"] == 1
    story.assert_one_account()


def test_a_renamed_folder_takes_its_messages_along(story: Story) -> None:
    story.program.create_folder("Projekte/Überblick & Co")
    story.put("Projekte/Überblick & Co", *small(3, seed=77))
    story.sync(passes=2)
    story.program.rename_folder("Projekte", "Alte Projekte")

    story.sync(passes=2)

    assert story.types()["message.deleted"] == 0
    assert story.types()["message.received"] == 3
    story.assert_one_account()


def test_a_folder_that_goes_and_leaves_its_children_is_empty(story: Story) -> None:
    """Dovecot lists it on, and does not open it."""
    story.program.create_folder("Projekte/Alt")
    story.program.create_folder("Projekte")
    story.put("Projekte", *small(2, seed=78))
    story.put("Projekte/Alt", *small(1, seed=79))
    story.sync(passes=2)
    story.program.delete_folder("Projekte")

    for _ in range(6):
        story.rows("UPDATE mailwright.folders SET retry_at = NULL RETURNING id")
        story.sync()

    story.assert_one_account()
    assert story.types()["message.deleted"] == 2
