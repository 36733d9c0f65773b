"""One unreadable message never stops a mailbox: the rest is stored, and it gets a stub after three tries."""

import pytest

from config.settings import Settings
from lab.servers.imap_faults import Faults
from tests.mail.sync.conftest import Follow, Followed
from tests.mail.sync.odd_imap import mail, mails

BAD = 3
MAIL = mails(5)
REST = {uid: content for uid, content in enumerate(MAIL, start=1) if uid != BAD}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Messages above 64 KiB are too large."""
    return settings.model_copy(update={"max_message_bytes": 2**16})


def stub_of(mailbox: Followed, uid: int = BAD) -> str | None:
    """Why a message is a stub; None where it is none."""
    rows = mailbox.rows("SELECT stub FROM mailwright.places WHERE imap_uid = :uid", uid=uid)
    return str(rows[0].stub) if rows else None


@pytest.mark.parametrize(
    "faults", [Faults(without_body=frozenset({BAD})), Faults(nil_body=frozenset({BAD}))], ids=["none", "NIL"]
)
def test_a_body_that_is_not_given_is_tried_three_times_and_then_a_stub(
    follow: Follow, faults: Faults
) -> None:
    mailbox = follow(MAIL, faults)

    mailbox.sync()
    assert mailbox.stored() == REST
    mailbox.sync()
    assert stub_of(mailbox) is None
    mailbox.sync()

    assert stub_of(mailbox) == "the server gave no body"
    mailbox.sync(2)
    assert mailbox.stored() == {**REST, BAD: None}
    assert mailbox.events()["message.unreadable"] == 1
    assert mailbox.server.asked_alone.count(BAD) <= 5
    assert mailbox.schedule().failures == 0


def test_a_body_that_comes_at_the_second_try_is_a_message(follow: Follow) -> None:
    mailbox = follow(MAIL, Faults(nil_body=frozenset({BAD})))
    mailbox.sync()
    mailbox.server.faults = Faults()

    mailbox.sync()

    assert mailbox.same_as_server()
    assert mailbox.events()["message.unreadable"] == 0
    assert mailbox.rows("SELECT * FROM mailwright.fetch_failures") == []


@pytest.mark.parametrize("refusal", [b"NO cannot convert this message", b"BAD internal error"])
def test_a_message_whose_fetch_is_refused_is_alone_in_that(follow: Follow, refusal: bytes) -> None:
    mailbox = follow(MAIL)
    mailbox.server.refused, mailbox.server.refusal = {(b"INBOX", BAD)}, refusal

    mailbox.sync()
    assert mailbox.stored() == REST
    mailbox.sync(3)

    assert mailbox.stored() == {**REST, BAD: None}
    assert mailbox.events()["message.unreadable"] == 1


def test_a_message_whose_flags_are_junk_is_a_message(follow: Follow) -> None:
    mailbox = follow(MAIL)
    mailbox.server.flags = {(b"INBOX", BAD): b'\\Seen a[b "open'}

    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert mailbox.events()["message.unreadable"] == 0
    mailbox.rows("UPDATE mailwright.folder_epochs SET compared_at = '2000-01-01' RETURNING id")
    mailbox.sync()
    assert mailbox.same_as_server(), "a comparison does not take it for expunged"


def test_a_message_at_which_the_server_hangs_up_is_found_out(follow: Follow) -> None:
    mailbox = follow({b"INBOX": MAIL, b"Later": mails(2, first=10)})
    mailbox.server.deadly = {(b"INBOX", BAD)}

    mailbox.sync()
    assert mailbox.schedule().failures == 1
    assert mailbox.schedule().lease_owner is None
    assert set(mailbox.stored()) <= set(REST)  # nothing half stored
    mailbox.sync(5)

    assert mailbox.stored() == {**REST, BAD: None}
    assert stub_of(mailbox) == "could not be fetched"
    assert mailbox.stored("Later").keys() == {1, 2}
    assert mailbox.events()["message.unreadable"] == 1
    tries = mailbox.server.asked_alone.count(BAD)
    assert tries == 3
    mailbox.sync()
    assert mailbox.schedule().failures == 0
    assert mailbox.server.asked_alone.count(BAD) == tries


def test_a_folder_that_ends_the_session_holds_up_nobody(follow: Follow) -> None:
    mailbox = follow({b"INBOX": mails(2), b"Archive": mails(1, first=5), b"Later": mails(2, first=10)})
    mailbox.server.deadly = {(b"Archive", 1)}

    mailbox.sync(3)  # the first finds out that something is wrong, the second where, the third goes round

    assert mailbox.stored().keys() == {1, 2}
    assert mailbox.stored("Later").keys() == {1, 2}
    assert mailbox.folder("Archive").failures >= 1


def test_a_message_too_large_is_a_stub_whatever_its_size_was_said_to_be(follow: Follow) -> None:
    large = mail(9, size=2**17)
    mailbox = follow([*MAIL, large], Faults(size_lie=12))

    mailbox.sync(2)

    assert mailbox.stored() == {**dict(enumerate(MAIL, start=1)), 6: None}
    assert stub_of(mailbox, 6) == "larger than 65536 bytes"
    assert mailbox.events()["message.unreadable"] == 1


@pytest.mark.parametrize("lie", [0, 12, 2**32 - 1, 2**40])
@pytest.mark.parametrize("keep", ["everything", "headers"])
def test_a_size_that_lies_changes_no_byte(follow: Follow, lie: int, keep: str) -> None:
    mailbox = follow(MAIL, Faults(size_lie=lie), keep=keep)

    mailbox.sync(2)

    assert mailbox.messages() == len(MAIL)
    if keep == "everything":
        assert mailbox.same_as_server()


@pytest.mark.parametrize(
    "faults",
    [Faults(junk=True), Faults(unsolicited=True), Faults(odd_order=True), Faults(literal8=True)],
    ids=["junk", "unsolicited", "odd order", "literal8"],
)
def test_noise_on_the_line_changes_nothing(follow: Follow, faults: Faults) -> None:
    mailbox = follow(MAIL, faults)

    mailbox.sync(3)

    assert mailbox.same_as_server()
    assert mailbox.schedule().failures == 0
    assert mailbox.events()["message.unreadable"] == 0


HOSTILE = {
    "NUL in the subject": b"Subject: a\0b\r\nMessage-ID: <a\0@x>\r\n\r\nx\0y\r\n",
    "8 bit everywhere": bytes(range(128, 256)) * 20 + b": x\r\nSubject: \xff\xfe\r\n\r\n\xff\xfe\r\n",
    "encoded NUL": b"Subject: =?utf-8?q?a=00b?=\r\nFrom: =?utf-8?q?=00?= <a@x>\r\n\r\nx\r\n",
    "surrogates": b"Subject: =?utf-7?q?+2AA-?= =?utf-16?b?2AA=?=\r\n\r\n\xed\xa0\x80\r\n",
    "long Message-ID": b"Message-ID: <"
    + b"".join(b"%x" % (n * 7919) for n in range(4000))
    + b"@x>\r\n\r\nx\r\n",
    "long subject": b"Subject: " + b"".join(b"%x" % (n * 7919) for n in range(4000)) + b"\r\n\r\nx\r\n",
    "many references": b"References: " + b"".join(b"<%d@y>\r\n " % n for n in range(2000)) + b"\r\n\r\nx\r\n",
    "long reference": b"References: <"
    + b"".join(b"%x" % (n * 7919) for n in range(4000))
    + b"@y>\r\n\r\nx\r\n",
    "day one": b"Date: Mon, 1 Jan 0001 00:00:00 +1400\r\n\r\nx\r\n",
    "last day": b"Date: Fri, 31 Dec 9999 23:59:59 -1400\r\n\r\nx\r\n",
    "empty": b"",
    "no header": b"\r\n\r\n\r\n",
    "NUL in a file name": b'Content-Type: application/x; name="a\0b"\r\nContent-ID: <\0>\r\n'
    b"Content-Disposition: attachment; filename*=utf-8''a%00b\r\n\r\nx\r\n",
    "NUL in a type": b'Content-Type: text/\0plain; charset="\0"\r\nList-Id: <\0>\r\n'
    b"Auto-Submitted: \0\r\nIn-Reply-To: <\0@x>\r\n\r\nx\r\n",
}


def test_hostile_mail_is_stored_as_it_is(follow: Follow) -> None:
    mailbox = follow([MAIL[0], *HOSTILE.values(), MAIL[1]])

    mailbox.sync()

    assert mailbox.schedule().failures == 0
    assert mailbox.same_as_server()


def test_odd_flags_and_dates_are_stored(follow: Follow) -> None:
    mailbox = follow(MAIL)
    mailbox.server.flags = {(b"INBOX", 1): b"$\xff\xfe \\Seen", (b"INBOX", 2): b"NULL a\\b \\*"}
    mailbox.server.dates = {
        (b"INBOX", 1): b"31-Dec-9999 23:59:59 -1400",
        (b"INBOX", 2): b" 1-Jan-0001 00:00:00 +1400",
        (b"INBOX", 3): b"99-Foo-2020 99:99:99 +9999",
    }

    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert mailbox.events()["message.flags_changed"] == 0


def test_every_fault_of_messages_at_once(follow: Follow) -> None:
    content = mails(40)
    mailbox = follow(content, Faults(without_body=frozenset({7}), nil_body=frozenset({30})))
    mailbox.server.refused = {(b"INBOX", 35)}
    mailbox.server.deadly = {(b"INBOX", 20)}

    mailbox.sync(8)

    bad = {7, 20, 30, 35}
    assert mailbox.stored() == {uid: None if uid in bad else raw for uid, raw in enumerate(content, start=1)}
    assert mailbox.events()["message.unreadable"] == len(bad)
    assert mailbox.schedule().failures == 0
