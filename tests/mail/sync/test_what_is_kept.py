"""How much of a mailbox is fetched and kept, and what of it is announced."""

from datetime import UTC, datetime, timedelta

import pytest

from tasks.access import SYSTEM
from tasks.sync import reading
from tests.mail.sync.conftest import Follow
from tests.mail.sync.odd_imap import mail, mails
from tests.unit.mime.test_reports import ATTEMPT, POSTFIX

OLD = b" 1-Jan-2001 00:00:00 +0000"


def imap_date(when: datetime) -> bytes:
    return when.strftime("%d-%b-%Y %H:%M:%S +0000").encode()


def test_only_the_wished_days_of_history_are_fetched_and_all_that_is_new(follow: Follow) -> None:
    mailbox = follow(mails(6), history_days=30)
    recent = imap_date(datetime.now(UTC) - timedelta(days=3))
    mailbox.server.dates = {(b"INBOX", uid): OLD if uid <= 4 else recent for uid in range(1, 8)}
    mailbox.server.dates[b"INBOX", 7] = OLD  # copied into the mailbox, keeping its date

    mailbox.sync(2)
    assert mailbox.stored().keys() == {5, 6}
    mailbox.server.add(mail(7))
    mailbox.sync(2)

    assert mailbox.stored().keys() == {5, 6, 7}
    assert mailbox.events()["message.received"] == 1


@pytest.mark.parametrize("keep", ["headers", "text", "everything"])
def test_no_more_is_kept_than_wished(follow: Follow, keep: str) -> None:
    mailbox = follow(mails(3), keep=keep)

    mailbox.sync()

    rows = mailbox.rows("SELECT subject, body_text, size, digest FROM mailwright.messages ORDER BY id")
    assert [row.subject for row in rows] == ["1", "2", "3"]
    assert all((row.body_text is None) is (keep == "headers") for row in rows)
    assert {row.size for row in rows} == {len(mail(1))}
    raws = mailbox.rows("SELECT count(*) AS n FROM mailwright.raw_messages")[0].n
    assert raws == (3 if keep == "everything" else 0)
    fetches = [line for line in mailbox.server.lines if b"BODY.PEEK[" in line]
    assert all((b"BODY.PEEK[HEADER]" in line) is (keep == "headers") for line in fetches)


def test_history_from_the_wished_day_on_is_announced(follow: Follow) -> None:
    now = datetime.now(UTC)
    mailbox = follow(mails(4), notify_from=now - timedelta(days=2))
    mailbox.server.dates = {(b"INBOX", uid): OLD for uid in (1, 2)}
    mailbox.server.dates |= {(b"INBOX", uid): imap_date(now - timedelta(days=1)) for uid in (3, 4)}

    mailbox.sync(2)

    assert mailbox.events()["message.received"] == 2


def test_nothing_is_announced_before_the_wished_day(follow: Follow) -> None:
    now = datetime.now(UTC)
    mailbox = follow(mails(2), notify_from=now + timedelta(days=1))
    mailbox.sync()
    mailbox.server.add(mail(3))

    mailbox.sync(2)

    assert mailbox.messages() == 3
    assert mailbox.events()["message.received"] == 0
    mailbox.rows("UPDATE mailwright.mailboxes SET notify_from = now() - interval '1 minute'")  # it comes
    mailbox.server.add(mail(4))
    mailbox.sync()
    assert mailbox.events()["message.received"] == 1


def test_an_arrival_with_an_old_date_is_announced(follow: Follow) -> None:
    mailbox = follow(mails(2))
    mailbox.sync()
    mailbox.server.dates[b"INBOX", 3] = OLD
    mailbox.server.add(mail(3))

    mailbox.sync()

    assert mailbox.events()["message.received"] == 1


def test_mail_of_our_own_is_filed_and_not_received(follow: Follow) -> None:
    mailbox = follow({b"INBOX": mails(1), b"Sent": mails(1, first=5)})
    mailbox.sync()
    mailbox.server.add(mail(6), b"Sent")

    mailbox.sync()

    assert mailbox.events()["message.received"] == 0
    assert mailbox.events()["message.filed"] == 1


def test_a_delivery_report_is_stored_with_its_message_and_waits_to_be_settled(follow: Follow) -> None:
    mailbox = follow([mail(1), POSTFIX])

    mailbox.sync()

    (row,) = mailbox.rows(
        "SELECT r.*, m.subject, m.uid FROM mailwright.reports r "
        "JOIN mailwright.messages m ON m.id = r.message_id"
    )
    assert (row.subject, row.kind, row.envelope_id, row.settled_at) == (
        "Undelivered",
        "delivery",
        "019ab",
        None,
    )
    assert (row.original_message_id, row.attempt) == ("<lost@x.example>", ATTEMPT)
    assert [(r["address"], r["action"], r["status"]) for r in row.recipients] == [
        ("gone@y.example", "failed", "5.1.1"),
        ("slow@y.example", "delayed", "4.4.1"),
    ]
    with mailbox.runtime.db.begin() as session:
        shown = reading.show_message(session, SYSTEM, row.uid)["report"]
    assert (shown["kind"], shown["attempt"], shown["recipients"]) == ("delivery", ATTEMPT, row.recipients)


def test_html_is_kept_as_it_was_sent_and_shown_cleaned(follow: Follow) -> None:
    sent = b'<p onclick="x()">Hello <img src="http://track.example/1.gif"><script>x()</script>'
    rich = b"Message-ID: <rich@x.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n" + sent
    mailbox = follow([rich])

    mailbox.sync()

    (row,) = mailbox.rows("SELECT uid, body_html FROM mailwright.messages")
    assert row.body_html == sent.decode()
    with mailbox.runtime.db.begin() as session:
        assert reading.show_message(session, SYSTEM, row.uid)["html"] == "<p>Hello <img></p>"
        assert reading.raw_message(session, SYSTEM, row.uid) == rich
