"""EMAILID and X-GM-MSGID: a message that lies in many folders, or moves, is downloaded once."""

import re
from collections.abc import Iterator

import pytest
from imapclient import IMAPClient

from lab.corpus import small
from lab.servers.imap_faults import Faults
from lab.servers.wheels import WheelsMail
from lab.world import Ports, add_mailbox, add_provider, sync_now
from tasks.runtime import Runtime
from tests.mail.sync.conftest import Follow, Followed
from tests.mail.sync.odd_imap import mail, mails

OBJECTID = b"IMAP4rev1 SASL-IR AUTH=PLAIN UNSELECT OBJECTID"
GMAIL = b"IMAP4rev1 SASL-IR AUTH=PLAIN UNSELECT X-GM-EXT-1"
ALL = b"[Gmail]/All Mail"


@pytest.fixture(params=[OBJECTID, GMAIL])
def labelled(follow: Follow, request: pytest.FixtureRequest) -> Followed:
    """Eight messages, some of them under two labels besides, not synced yet."""
    held = mails(8)
    folders = {b"INBOX": held[:5], b"Work": held[3:7], ALL: held}
    mailbox = follow(folders, Faults(capabilities=request.param))
    mailbox.server.email_ids = {each: b"%d" % (100 + number) for number, each in enumerate(held)}
    return mailbox


def downloaded(mailbox: Followed) -> int:
    """How many messages were asked for with their bytes."""
    found = 0
    for line in mailbox.server.lines:
        if b"BODY.PEEK[]" in line and (uids := re.search(rb"UID FETCH ([\d:,]+)", line)):
            for span in uids[1].split(b","):
                ends = [int(end) for end in span.split(b":")]
                found += ends[-1] - ends[0] + 1
    return found


def test_a_message_in_several_folders_is_one_and_is_downloaded_once(labelled: Followed) -> None:
    labelled.sync(2)

    assert labelled.same_as_server()
    assert labelled.messages() == 8
    assert downloaded(labelled) == 8


def test_a_move_is_told_and_downloads_nothing(labelled: Followed) -> None:
    labelled.sync(2)
    labelled.server.lines.clear()
    content = labelled.server.folders[b"INBOX"].pop(1)
    labelled.server.flags[b"Work", 5] = b"\\Flagged"
    labelled.server.add(content, b"Work")

    labelled.sync(3)

    assert labelled.same_as_server()
    assert downloaded(labelled) == 0
    (place,) = labelled.rows(
        "SELECT p.flags FROM mailwright.places p JOIN mailwright.folder_epochs e ON e.id = p.epoch_id "
        "JOIN mailwright.folders f ON f.id = e.folder_id WHERE f.name = 'Work' AND p.imap_uid = 5"
    )
    assert place.flags == ["\\Flagged"]
    assert labelled.events()["message.copied"] + labelled.events()["message.moved"] >= 1
    assert labelled.events()["message.deleted"] == 0


def test_mail_without_names_in_a_renumbered_folder_is_known(labelled: Followed) -> None:
    nameless = b"Subject: nameless\r\n\r\nText\r\n"
    labelled.server.add(nameless, b"Work")
    labelled.server.email_ids[nameless] = b"200"
    labelled.sync(2)
    labelled.server.lines.clear()
    labelled.server.reset(b"Work", first=50)

    labelled.sync(2)

    assert labelled.same_as_server()
    assert downloaded(labelled) == 0
    assert labelled.events()["folder.reset"] == 1


def test_an_id_that_stands_for_two_mails_of_other_sizes_hides_neither(labelled: Followed) -> None:
    labelled.sync(2)
    odd = mail(90, subject="something else altogether")
    labelled.server.email_ids[odd] = b"100"
    labelled.server.add(odd, b"Work")

    labelled.sync(2)

    assert labelled.same_as_server()
    assert labelled.messages() == 9


def test_the_same_content_twice_in_a_folder_is_two_messages(labelled: Followed) -> None:
    twin = mail(1)
    labelled.server.add(twin, b"Work")
    labelled.server.add(twin, b"Work")

    labelled.sync(3)
    labelled.server.add(twin, b"Work")
    labelled.sync(3)

    assert labelled.same_as_server()
    assert labelled.messages() == 10


def test_identities_offered_and_refused_are_done_without(labelled: Followed) -> None:
    labelled.server.refuse_identity = True

    labelled.sync(2)

    assert labelled.same_as_server()
    assert labelled.messages() == 8
    assert labelled.schedule().failures == labelled.folder("INBOX").failures == 0


def test_what_the_server_counts_as_a_thread_is_one(labelled: Followed) -> None:
    held = mails(8)
    labelled.server.threads = {held[0]: b"7000", held[6]: b"7000"}

    labelled.sync(2)

    threads = {
        row.message_id: row.thread_id
        for row in labelled.rows("SELECT message_id, thread_id FROM mailwright.messages")
    }
    assert threads["<1@x.example>"] == threads["<7@x.example>"]
    assert len(set(threads.values())) == 7


@pytest.fixture
def pymap() -> Iterator[WheelsMail]:
    """A server that offers OBJECTID in earnest."""
    server = WheelsMail(None, {"anna@test.example": "secret"}, ["test.example"])
    yield server
    server.stop()


def test_a_server_s_own_emailid_makes_a_copy_a_second_place(runtime: Runtime, pymap: WheelsMail) -> None:
    where = Ports(imap=pymap.imap_port, imap_security="tls", ca=pymap.ca_file, host=pymap.imap_host)
    mailbox = add_mailbox(runtime, add_provider(runtime, where), "anna@test.example", "secret")
    ours = Followed(runtime, None, mailbox)  # type: ignore[arg-type]
    for raw in small(3, seed=14):
        pymap.deliver("anna@test.example", raw, "Projekte")
    sync_now(runtime, mailbox, 2)
    assert not ours.rows("SELECT 1 FROM mailwright.messages WHERE email_id IS NULL")
    program: IMAPClient = pymap._client("anna@test.example")
    program.select_folder("Projekte", readonly=True)
    program.copy(program.search(), "INBOX")

    sync_now(runtime, mailbox, 2)

    assert ours.messages() == 3
    assert len(ours.stored("INBOX")) == 3
    assert ours.events()["message.copied"] == 3
