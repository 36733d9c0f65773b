"""A sync that lost its lease writes nothing more, and whoever comes next doubles and misses nothing."""

import pytest

from tests.mail.sync.conftest import Follow, Followed
from tests.mail.sync.odd_imap import mails

MAIL = {b"INBOX": mails(230), b"Later": mails(3, first=1000)}


def steal_at(mailbox: Followed, command: bytes, turn: int) -> None:
    """Let another process take the lease when the server hears ``command`` for the ``turn``-th time."""
    heard = 0

    def steal(name: str, rest: bytes) -> None:
        nonlocal heard
        heard += command in name.encode() + b" " + rest
        if heard == turn and command in name.encode() + b" " + rest:
            mailbox.rows(
                "UPDATE mailwright.schedule SET lease_token = lease_token + 1, lease_owner = 'thief', "
                "lease_until = now() + interval '1 hour'"
            )

    mailbox.server.before = steal


@pytest.mark.parametrize(
    ("command", "turn"),
    [(b"LIST", 1), (b"EXAMINE", 1), (b"BODY.PEEK", 1), (b"BODY.PEEK", 2), (b"EXAMINE", 2)],
)
def test_nothing_is_doubled_whenever_the_lease_is_lost(follow: Follow, command: bytes, turn: int) -> None:
    mailbox = follow(MAIL)
    steal_at(mailbox, command, turn)

    mailbox.sync()

    assert mailbox.schedule().lease_owner == "thief"  # it was not given back by who lost it
    assert mailbox.schedule().failures == 0
    after_theft = mailbox.messages()
    assert after_theft < 233
    mailbox.server.before = lambda _name, _rest: None
    mailbox.rows("UPDATE mailwright.schedule SET lease_owner = NULL, lease_until = NULL")
    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert mailbox.messages() == 233
    progress = mailbox.rows("SELECT data FROM mailwright.events_pending WHERE type = 'folder.progress'")
    assert sum(row.data["stored"] for row in progress) == 233
    assert mailbox.events()["folder.appeared"] == 2


def test_a_holder_that_died_is_followed_by_one_that_is_careful(follow: Follow) -> None:
    mailbox = follow(mails(12))
    steal_at(mailbox, b"BODY.PEEK", 1)
    mailbox.sync()
    mailbox.server.before = lambda _name, _rest: None
    mailbox.rows("UPDATE mailwright.schedule SET lease_until = now()")

    mailbox.sync()

    assert mailbox.same_as_server()
    assert mailbox.server.asked_alone == list(range(12, 0, -1))
    assert mailbox.rows("SELECT * FROM mailwright.fetch_failures") == []


def test_a_lease_lost_at_the_very_end_is_no_fault(follow: Follow) -> None:
    mailbox = follow(mails(3))
    steal_at(mailbox, b"UNSELECT", 1)

    mailbox.sync()

    assert mailbox.schedule().lease_owner == "thief"
    assert mailbox.same_as_server()


def test_a_refusal_counts_only_under_the_lease(follow: Follow) -> None:
    mailbox = follow(mails(3), password="wrong")
    steal_at(mailbox, b"AUTHENTICATE", 1)

    mailbox.sync()

    assert mailbox.schedule().lease_owner == "thief"
    assert mailbox.rows("SELECT imap_refusals AS n FROM mailwright.mailboxes")[0].n == 0
