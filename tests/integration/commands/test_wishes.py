"""Who may change what, what is refused with a sentence, and what the queue holds then."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from config.errors import Conflict, NotFound, PermissionDenied, UserError
from lab.world import Ports, add_mailbox, add_provider
from schema.tables.access import User
from tasks.access import Actor
from tasks.runtime import Runtime
from tasks.sync import reading
from tasks.sync.commands import wishes

ADMIN, OWNER, STRANGER = Actor("administrator"), Actor("anna"), Actor("eve")

FOLDER = """
    INSERT INTO mailwright.folders (mailbox_id, wire_name, name, special_use, selectable, followed)
    VALUES (:mailbox, convert_to(:name, 'UTF8'), :name, :use, true, true) RETURNING id
"""
EPOCH = """
    INSERT INTO mailwright.folder_epochs (mailbox_id, folder_id, state, uidvalidity)
    VALUES (:mailbox, :folder, 'current', 7) RETURNING id
"""
MESSAGE = """
    INSERT INTO mailwright.messages (mailbox_id, digest, size, subject, announced)
    VALUES (:mailbox, '\\x00', 1, 'Hello', true) RETURNING id
"""
PLACE = """
    INSERT INTO mailwright.places (epoch_id, imap_uid, mailbox_id, message_id)
    VALUES (:epoch, :uid, :mailbox, :message)
"""


class Shelf:
    """A mailbox of anna's with INBOX, Archive and Trash, and one message in ``lies``."""

    def __init__(
        self, runtime: Runtime, *lies: str, folders: tuple[str, ...] = ("INBOX", "Archive", "Trash")
    ):
        self.runtime = runtime
        provider = add_provider(runtime, Ports(imap=1))
        with runtime.db.begin() as session:
            anna = User(name="anna")
            session.add_all([anna, User(name="eve")])
            session.flush()
            owner = anna.id
        self.mailbox = add_mailbox(runtime, provider, "anna@test.example", "secret", owner_id=owner)
        message = self.sql(MESSAGE, mailbox=self.mailbox)
        for name in folders:
            use = "\\Trash" if name == "Trash" else None
            folder = self.sql(FOLDER, mailbox=self.mailbox, name=name, use=use)
            epoch = self.sql(EPOCH, mailbox=self.mailbox, folder=folder)
            if name in lies:
                self.sql(PLACE, epoch=epoch, uid=5, mailbox=self.mailbox, message=message)
        self.uid = UUID(str(self.sql("SELECT uid FROM mailwright.messages")))

    def sql(self, statement: str, **given: Any) -> Any:
        """Run a statement and commit; its first value where it has one."""
        with self.runtime.db.begin() as session:
            result = session.execute(text(statement), given)
            return result.scalar() if result.returns_rows else None  # type: ignore[attr-defined]

    def ask(
        self, wish: Callable[..., wishes.Queued], actor: Actor, *args: Any, **named: Any
    ) -> wishes.Queued:
        """Make a wish for the message."""
        with self.runtime.db.begin() as session:
            return wish(session, actor, [self.uid], *args, **named)

    @property
    def queued(self) -> int:
        """How many commands there are."""
        return int(self.sql("SELECT count(*) FROM mailwright.commands"))


@pytest.mark.parametrize("actor", [ADMIN, OWNER])
def test_the_owner_and_who_manages_mailboxes_may_change_mail(runtime: Runtime, actor: Actor) -> None:
    shelf = Shelf(runtime, "INBOX")
    shelf.sql("UPDATE mailwright.schedule SET next_poll_at = now() + interval '1 hour'")

    queued = shelf.ask(wishes.mark, actor, add=["\\Seen"], remove=[])

    assert (len(queued.commands), queued.followed, shelf.queued) == (1, True, 1)
    assert shelf.sql("SELECT requested_by FROM mailwright.commands") == actor.name
    assert shelf.sql("SELECT next_poll_at <= now() AND asked FROM mailwright.schedule")


@pytest.mark.parametrize(
    "wish",
    [
        lambda shelf: shelf.ask(wishes.mark, STRANGER, add=["\\Seen"], remove=[]),
        lambda shelf: shelf.ask(wishes.move, STRANGER, "Archive"),
        lambda shelf: shelf.ask(wishes.copy, STRANGER, "Archive"),
        lambda shelf: shelf.ask(wishes.delete, STRANGER, permanently=True),
    ],
)
def test_nobody_else_may(runtime: Runtime, wish: Callable[[Shelf], object]) -> None:
    shelf = Shelf(runtime, "INBOX")

    with pytest.raises(PermissionDenied):
        wish(shelf)
    with runtime.db.begin() as session, pytest.raises(PermissionDenied):
        wishes.append(session, STRANGER, "anna@test.example", "INBOX", b"Message-ID: <1@x>\n\nx")

    assert shelf.queued == 0


def test_what_cannot_be_is_refused_with_a_sentence(runtime: Runtime) -> None:
    shelf = Shelf(runtime, "INBOX", "Archive", folders=("INBOX", "Archive", "Other"))
    one = shelf.ask

    with pytest.raises(NotFound, match=r'no folder "Nowhere".*"INBOX", "Archive"'):
        one(wishes.move, ADMIN, "Nowhere")
    with pytest.raises(Conflict, match="already"):
        one(wishes.move, ADMIN, "Archive")
    with pytest.raises(UserError, match="Archive, INBOX: say with --from"):
        one(wishes.move, ADMIN, "Other")
    with pytest.raises(NotFound, match='does not lie in "Other"'):
        one(wishes.delete, ADMIN, permanently=True, source="Other")
    with pytest.raises(UserError, match="no Trash folder; --permanently"):
        one(wishes.delete, ADMIN)
    with pytest.raises(UserError, match="say which flags"):
        one(wishes.mark, ADMIN, add=["\\Deleted"], remove=[])
    with runtime.db.begin() as session:
        with pytest.raises(NotFound):
            wishes.mark(session, ADMIN, [uuid4()], add=["\\Seen"], remove=[])
        with pytest.raises(UserError, match="Message-ID"):
            wishes.append(session, ADMIN, "anna@test.example", "INBOX", b"Subject: x\n\nx")
    assert shelf.queued == 0

    one(wishes.move, ADMIN, "Other", source="INBOX")
    assert shelf.queued == 1


def test_a_message_about_to_be_deleted_is_not_there_any_more(runtime: Runtime) -> None:
    shelf = Shelf(runtime, "INBOX")
    shelf.ask(wishes.delete, OWNER, permanently=True)

    with runtime.db.begin() as session:
        assert reading.list_messages(session, OWNER, "anna@test.example") == []
        shown = reading.show_message(session, OWNER, shelf.uid)
    with pytest.raises(NotFound, match="about to be"):
        shelf.ask(wishes.mark, OWNER, add=["\\Seen"], remove=[])
    assert shown["places"] == []
    assert [(change["kind"], change["state"]) for change in shown["changes"]] == [("delete", "queued")]


def test_a_paused_mailbox_keeps_the_wish(runtime: Runtime) -> None:
    shelf = Shelf(runtime, "INBOX")
    shelf.sql("UPDATE mailwright.schedule SET enabled = false")

    assert not shelf.ask(wishes.mark, OWNER, add=["\\Seen"], remove=[]).followed
    assert shelf.queued == 1
