"""The copy in Sent: appended once, looked for after a lost answer, and never in the mailbox's way."""

from uuid import uuid4

import pytest

from lab.servers.imap_faults import Faults, Stage
from tests.mail.sync.conftest import Follow, Followed
from tests.mail.sync.odd_imap import mail, mails

FOLDERS = {b"INBOX": mails(2), b"Sent": []}


def sent_by_us(mailbox: Followed, number: int = 1, *, attempted: bool = True) -> None:
    """A message that went out and waits to be filed, as the dispatcher leaves it."""
    row = mailbox.rows(
        "INSERT INTO mailwright.outbox (mailbox_id, state, expires_at, principal, message_id) "
        "VALUES (:id, 'sent', now() + interval '1 day', 'test', :name) RETURNING id",
        id=mailbox.id,
        name=f"<{number}@x.example>",
    )[0]
    mailbox.rows(
        "INSERT INTO mailwright.outbox_content (outbound_id, content) VALUES (:id, :content)",
        id=row.id,
        content=mail(number),
    )
    if attempted:
        mailbox.rows(
            "INSERT INTO mailwright.attempts (uid, outbound_id, number, outcome) VALUES (:u, :id, 1, 'sent')",
            u=uuid4(),
            id=row.id,
        )
    mailbox.rows(
        "INSERT INTO mailwright.commands (mailbox_id, kind, outbound_id) VALUES (:m, 'append_sent', :id)",
        m=mailbox.id,
        id=row.id,
    )


def command(mailbox: Followed) -> tuple[str, int]:
    """State and tries of the only command."""
    row = mailbox.rows("SELECT state, tries FROM mailwright.commands")[0]
    return str(row.state), int(row.tries)


def later(mailbox: Followed) -> None:
    """The commands' pauses are over."""
    mailbox.rows("UPDATE mailwright.commands SET due_at = now()")


def test_a_copy_is_appended_once_and_known_as_ours(follow: Follow) -> None:
    mailbox = follow(FOLDERS)
    mailbox.sync()
    sent_by_us(mailbox)

    mailbox.sync(3)

    assert command(mailbox) == ("done", 1)
    assert mailbox.server.commands["APPEND"] == 1
    assert mailbox.server.commands["SEARCH"] == 0
    (copy,) = mailbox.server.folders[b"Sent"].values()
    assert copy.endswith(mail(1))
    assert mailbox.rows(
        "SELECT 1 FROM mailwright.messages m JOIN mailwright.outbox o ON o.uid = m.outbound_uid"
    )
    assert mailbox.events()["message.received"] == 0


def test_a_lost_answer_is_searched_for_and_not_repeated(follow: Follow) -> None:
    mailbox = follow(FOLDERS, Faults(append_then_close=True))
    sent_by_us(mailbox)

    mailbox.sync()
    assert command(mailbox) == ("queued", 1)
    mailbox.server.faults = Faults()
    mailbox.sync()
    assert mailbox.server.commands["APPEND"] == 1  # not due yet
    later(mailbox)
    mailbox.sync()

    assert command(mailbox) == ("done", 2)
    assert mailbox.server.commands["APPEND"] == 1
    assert len(mailbox.server.folders[b"Sent"]) == 1


def test_an_append_that_never_arrived_is_made_again(follow: Follow) -> None:
    mailbox = follow(FOLDERS, Faults(close=frozenset({Stage.APPEND})))
    sent_by_us(mailbox)
    mailbox.sync()
    mailbox.server.faults = Faults()
    later(mailbox)

    mailbox.sync()

    assert command(mailbox) == ("done", 2)
    assert len(mailbox.server.folders[b"Sent"]) == 1


def test_of_several_copies_each_is_there_once_though_the_answer_to_one_was_lost(follow: Follow) -> None:
    mailbox = follow(FOLDERS)
    for number in (1, 2, 3):
        sent_by_us(mailbox, number)

    def lose_the_second(name: str, _rest: bytes) -> None:
        if name == "APPEND" and mailbox.server.commands["APPEND"] == 2:
            mailbox.server.faults = Faults(append_then_close=True)

    mailbox.server.before = lose_the_second
    mailbox.sync()
    mailbox.server.faults = Faults()
    mailbox.server.before = lambda _name, _rest: None
    later(mailbox)
    mailbox.sync()

    assert {row.state for row in mailbox.rows("SELECT state FROM mailwright.commands")} == {"done"}
    copies = list(mailbox.server.folders[b"Sent"].values())
    assert sorted(copy[-len(mail(1)) :] for copy in copies) == [mail(1), mail(2), mail(3)]


def test_the_folder_told_to_be_for_sent_mail_is_used(follow: Follow) -> None:
    mailbox = follow({b"INBOX": [], b"Sent": [], b"Postausgang": []})
    mailbox.server.attributes = {b"Postausgang": b"\\Sent"}
    sent_by_us(mailbox)

    mailbox.sync()

    assert len(mailbox.server.folders[b"Postausgang"]) == 1
    assert mailbox.server.folders[b"Sent"] == {}


def test_a_missing_sent_folder_is_made(follow: Follow) -> None:
    mailbox = follow(mails(1))
    sent_by_us(mailbox)

    mailbox.sync(2)

    assert len(mailbox.server.folders[b"Sent"]) == 1
    assert mailbox.same_as_server()


@pytest.mark.parametrize(
    ("folders", "reply"),
    [
        (FOLDERS, b"NO [OVERQUOTA] the mailbox is full"),
        (FOLDERS, b"NO [UNAVAILABLE] later"),
        ({b"INBOX": mails(2)}, b"NO [NOPERM] no folder of that name"),
    ],
    ids=["full", "busy", "cannot be made"],
)
def test_a_copy_that_cannot_be_filed_does_not_stop_the_mailbox(
    follow: Follow, folders: dict[bytes, list[bytes]], reply: bytes
) -> None:
    mailbox = follow(folders)
    sent_by_us(mailbox)
    mailbox.server.folder_replies = {b"Sent": reply, b"INBOX/Sent": reply}

    mailbox.sync(2)
    assert mailbox.stored().keys() == {1, 2}
    for _ in range(8):
        later(mailbox)
        mailbox.sync()

    assert command(mailbox) == ("failed", 8)
    mailbox.server.folder_replies = {}
    mailbox.server.add(mail(9))
    mailbox.sync()
    assert mailbox.schedule().failures == 0
    assert mailbox.same_as_server()


def test_a_copy_whose_every_try_was_broken_off_is_given_up(follow: Follow) -> None:
    mailbox = follow(FOLDERS)
    sent_by_us(mailbox)
    mailbox.rows("UPDATE mailwright.commands SET tries = 8")

    mailbox.sync()

    assert command(mailbox)[0] == "failed"
    assert mailbox.server.commands["APPEND"] == 0
    assert mailbox.stored().keys() == {1, 2}


def test_a_copy_of_what_never_went_out_is_not_filed(follow: Follow) -> None:
    mailbox = follow(FOLDERS)
    sent_by_us(mailbox, attempted=False)

    mailbox.sync()

    assert mailbox.server.commands["APPEND"] == 0
    assert mailbox.stored().keys() == {1, 2}
