"""What servers are known to do to others that follow mailboxes, a server of ours does here."""

import pytest

from lab.servers.imap_faults import Faults, Stage
from tests.mail.sync.conftest import Follow
from tests.mail.sync.odd_imap import mail, mails
from tests.mail.sync.test_sent_copy import command, sent_by_us

CONDSTORE = b"IMAP4rev1 CONDSTORE AUTH=PLAIN UNSELECT"


def test_mail_is_found_where_search_finds_nothing(follow: Follow) -> None:
    """Exchange leaves mail out of SEARCH, so it is not asked."""
    mailbox = follow(mails(300), Faults(reply={Stage.SEARCH: b"OK nothing"}))

    mailbox.sync(2)
    mailbox.server.add(mail(301))
    mailbox.sync()

    assert mailbox.same_as_server()
    assert mailbox.messages() == 301
    assert mailbox.server.commands["SEARCH"] == 0


def test_a_select_that_wants_no_condstore_is_made_without(follow: Follow) -> None:
    """IONOS answers BAD to what it offers."""
    mailbox = follow(mails(3), Faults(capabilities=CONDSTORE))
    server = mailbox.server
    server.modseq = 99

    def understands(name: str, rest: bytes) -> None:
        bad = name in {"EXAMINE", "SELECT"} and b"CONDSTORE" in rest
        server.folder_replies = {b"INBOX": b"BAD parse error"} if bad else {}

    server.before = understands
    mailbox.sync(2)
    server.flags[b"INBOX", 2] = b"\\Flagged"
    server.add(mail(4))
    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert mailbox.events()["message.flags_changed"] == 1
    assert mailbox.schedule().failures == mailbox.folder("INBOX").failures == 0


def test_folders_rooted_under_inbox_are_followed_and_sent_is_made_there(follow: Follow) -> None:
    """Courier has no folder beside INBOX, and makes none."""
    mailbox = follow({b"INBOX": mails(2), b"INBOX.Trash": mails(1, first=10)})
    server = mailbox.server
    server.delimiter = b"."
    server.folder_replies = {b"Sent": b"NO Invalid mailbox name."}
    sent_by_us(mailbox)

    mailbox.sync(2)

    assert command(mailbox) == ("done", 1)
    assert [each[-len(mail(1)) :] for each in server.folders[b"INBOX.Sent"].values()] == [mail(1)]
    assert mailbox.folder("INBOX.Sent").special_use == "\\Sent"
    assert mailbox.folder("INBOX.Trash").special_use == "\\Trash"
    assert mailbox.same_as_server()


@pytest.mark.parametrize("command_name", ["ID", "NAMESPACE", "ENABLE"])
def test_what_is_not_offered_is_not_asked_for(follow: Follow, command_name: str) -> None:
    """GMX and Exchange each refuse one form of ID."""
    mailbox = follow(mails(2))

    mailbox.sync(2)

    assert mailbox.server.commands[command_name] == 0


def test_who_opens_no_folder_for_a_client_without_a_name_is_told_ours_first(follow: Follow) -> None:
    """Netease (163.com, 126.com) calls it an unsafe login otherwise."""
    mailbox = follow(mails(3), Faults(capabilities=b"IMAP4rev1 AUTH=PLAIN UNSELECT ID"))
    server = mailbox.server
    unsafe = b"NO SELECT Unsafe Login. Please contact kefu@188.com for help"
    server.folder_replies = {b"INBOX": unsafe}

    def introduced(name: str, rest: bytes) -> None:
        if name == "ID" and b'"name"' in rest:
            server.folder_replies = {}

    server.before = introduced
    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert mailbox.folder("INBOX").failures == 0


@pytest.mark.parametrize(
    "reply", [b"BAD invalid ID arguments", b"NO [CANNOT] not that", b"BAD Command Argument Error. 11"]
)
def test_an_id_that_is_offered_and_refused_is_passed_over(follow: Follow, reply: bytes) -> None:
    """GMX and Exchange each refuse one form of it."""
    mailbox = follow(mails(3), Faults(capabilities=b"IMAP4rev1 AUTH=PLAIN UNSELECT ID"))
    mailbox.server.replies = {"ID": reply}

    mailbox.sync(2)

    assert mailbox.server.commands["ID"] >= 1
    assert mailbox.same_as_server()
    assert mailbox.schedule().failures == 0


SPACES = b"IMAP4rev1 AUTH=PLAIN UNSELECT NAMESPACE"


@pytest.mark.parametrize(
    ("spaces", "followed"),
    [
        (b'(("" "/")) (("Other Users/" "/")) (("Public/" "/"))', {"INBOX", "Work"}),
        (b'(("" "/")) NIL (("Public/" "/" "X-PARAM" ("a" "b")))', {"INBOX", "Work", "Other Users/ben/Sent"}),
        (b'(("INBOX" "/") ("" "/")) NIL NIL', {"INBOX", "Work", "Other Users/ben/Sent", "Public/News"}),
        (b'NIL NIL (("" "/"))', {"INBOX", "Work", "Other Users/ben/Sent", "Public/News"}),
        (b"nonsense (", {"INBOX", "Work", "Other Users/ben/Sent", "Public/News"}),
    ],
)
def test_folders_of_others_and_of_all_are_not_followed_unasked(
    follow: Follow, spaces: bytes, followed: set[str]
) -> None:
    """Exchange and Cyrus list public folders beside one's own, to each of a thousand users."""
    folders = {b"INBOX": mails(1), b"Work": mails(1, 10), b"Other Users/ben/Sent": mails(1, 20)}
    mailbox = follow({**folders, b"Public/News": mails(1, 30)}, Faults(capabilities=SPACES))
    mailbox.server.untagged = {"NAMESPACE": b"NAMESPACE " + spaces}

    mailbox.sync(2)

    rows = mailbox.rows("SELECT name FROM mailwright.folders WHERE followed")
    assert {row.name for row in rows} == followed
    assert mailbox.messages() == len(followed)


def test_a_folder_of_all_that_is_named_is_followed(follow: Follow) -> None:
    folders = {b"INBOX": mails(1), b"Public/News": mails(2, 10), b"Public/Old": mails(2, 20)}
    mailbox = follow(folders, Faults(capabilities=SPACES), folders=["INBOX", "Public/News"])
    mailbox.server.untagged = {"NAMESPACE": b'NAMESPACE (("" "/")) NIL (("Public/" "/"))'}

    mailbox.sync(2)

    assert mailbox.messages() == 3


def test_no_session_is_left_open_whatever_goes_wrong(follow: Follow) -> None:
    """Others leaked sessions until the server let nobody in any more."""
    mailbox = follow({b"INBOX": mails(3), b"Sent": mails(1, first=10)})
    for stage in (Stage.LOGIN, Stage.LIST, Stage.SELECT, Stage.FETCH, Stage.LITERAL, Stage.AFTER_LITERAL):
        for faults in (
            Faults(close=frozenset({stage})),
            Faults(bye=frozenset({stage})),
            Faults(reply={stage: b"NO sorry"}),
            Faults(reply={stage: b"BAD sorry"}),
        ):
            mailbox.server.faults = faults
            mailbox.sync()
            mailbox.rows("UPDATE mailwright.mailboxes SET imap_refusals = 0, imap_retry_at = NULL")
    mailbox.server.faults = Faults()
    mailbox.rows("UPDATE mailwright.mailboxes SET state = 'active'")
    mailbox.sync(3)

    assert mailbox.same_as_server()
    assert mailbox.server.most_open == 1
