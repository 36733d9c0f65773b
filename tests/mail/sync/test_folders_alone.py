"""Folders fail alone, come and go, are renumbered, and messages move between them."""

import pytest

from lab.world import sync_now
from tasks.access import SYSTEM
from tasks.housekeeping import tidy
from tasks.sync import folder
from tasks.sync.plan import NEWEST_FLAGS
from tasks.wire.imap import Disconnected
from tests.mail.sync.conftest import Follow
from tests.mail.sync.odd_imap import mail, mails

THREE = {b"INBOX": mails(3), b"Middle": mails(2, first=10), b"Zuletzt": mails(2, first=20)}


@pytest.mark.parametrize(
    "reply",
    [
        b"NO [NOPERM] not for you",
        b"BAD what",
        b"NO [SERVERBUG] Internal error occurred. Refer to server log",
        b"NO [INUSE] mailbox is locked",
        b"NO Mailbox temporarily unavailable",
    ],
)
def test_a_folder_that_cannot_be_opened_fails_alone(follow: Follow, reply: bytes) -> None:
    mailbox = follow(THREE)
    mailbox.server.folder_replies = {b"Middle": reply}

    mailbox.sync(3)

    assert len(mailbox.stored("INBOX")) == 3
    assert len(mailbox.stored("Zuletzt")) == 2
    assert mailbox.folder("Middle").failures >= 1
    assert mailbox.folder("Middle").last_error
    mailbox.server.folder_replies = {}
    mailbox.sync(2)
    assert mailbox.same_as_server()
    assert mailbox.folder("Middle").failures == 0


def test_a_folder_that_breaks_later_keeps_its_mail_and_holds_up_nobody(follow: Follow) -> None:
    mailbox = follow(THREE)
    mailbox.sync()
    mailbox.server.folder_replies = {b"Middle": b"NO [SERVERBUG] Internal error occurred."}
    mailbox.server.add(mail(50), b"Zuletzt")

    mailbox.sync(3)

    assert len(mailbox.stored("Zuletzt")) == 3
    assert len(mailbox.stored("Middle")) == 2
    assert mailbox.events()["message.deleted"] == 0


def test_a_folder_that_stays_broken_does_not_keep_the_mailbox_busy(follow: Follow) -> None:
    mailbox = follow(THREE)
    mailbox.server.folder_replies = {b"Middle": b"NO [NOPERM] not for you"}
    mailbox.sync(5)
    shortest = mailbox.runtime.settings.poll_min_seconds
    del mailbox.server.folders[b"INBOX"][2]

    sync_now(mailbox.runtime, mailbox.id, passes=3)  # while the folder rests

    assert mailbox.events()["message.deleted"] == 1
    assert mailbox.schedule().interval_seconds > shortest


def test_a_folder_that_vanishes_between_list_and_select(follow: Follow) -> None:
    mailbox = follow(THREE)

    def vanish(name: str, _rest: bytes) -> None:
        if name == "EXAMINE":
            mailbox.server.folders.pop(b"Middle", None)

    mailbox.server.before = vanish
    mailbox.sync()

    assert len(mailbox.stored("Zuletzt")) == 2
    assert mailbox.schedule().failures == 0
    mailbox.sync()
    assert mailbox.events()["folder.vanished"] == 1
    assert mailbox.same_as_server()


def test_an_empty_listing_deletes_nothing(follow: Follow) -> None:
    mailbox = follow(THREE)
    mailbox.sync()
    mailbox.server.hidden = set(THREE)

    mailbox.sync(3)

    assert mailbox.messages() == 7
    assert "no folder" in mailbox.schedule().last_error
    mailbox.server.hidden = set()
    mailbox.sync()
    assert mailbox.same_as_server()
    assert mailbox.events()["folder.vanished"] == mailbox.events()["message.deleted"] == 0


def test_a_folder_renumbered_at_each_look_stops_alone_and_starts_again(follow: Follow) -> None:
    mailbox = follow(THREE)
    mailbox.sync()
    for _ in range(8):
        mailbox.server.reset(b"Middle")
        mailbox.sync()

    assert mailbox.events()["folder.reset"] == 5
    assert "renumbered" in mailbox.folder("Middle").last_error
    mailbox.server.add(mail(50), b"Zuletzt")
    mailbox.sync()
    assert len(mailbox.stored("Zuletzt")) == 3
    assert mailbox.messages() == 8
    assert mailbox.events()["message.received"] == 1
    assert mailbox.events()["message.moved"] == mailbox.events()["message.deleted"] == 0

    mailbox.rows("UPDATE mailwright.folders SET retry_at = now()")  # a day later it holds still
    mailbox.sync(3)

    assert mailbox.events()["folder.reset"] == 6
    assert mailbox.folder("Middle").resets == mailbox.folder("Middle").failures == 0
    assert mailbox.same_as_server()


def test_resets_with_quiet_looks_between_are_not_in_a_row(follow: Follow) -> None:
    mailbox = follow({b"INBOX": mails(1), b"Empty": []})
    mailbox.sync()
    for _ in range(7):
        mailbox.server.reset(b"Empty")
        mailbox.sync(2)

    assert mailbox.folder("Empty").failures == 0
    assert mailbox.folder("Empty").resets == 0


def test_renumbered_mail_without_names_neither_moves_nor_arrives(follow: Follow) -> None:
    nameless = [b"Subject: %d\r\n\r\nText\r\n" % number for number in range(4)]
    mailbox = follow([*nameless, nameless[0]])
    mailbox.sync()
    before = {row.uid for row in mailbox.rows("SELECT uid FROM mailwright.messages")}
    mailbox.server.reset(first=100)
    mailbox.server.add(mail(50))

    mailbox.sync(3)

    after = {row.uid for row in mailbox.rows("SELECT uid FROM mailwright.messages")}
    assert len(before) == 5
    assert len(after - before) == 1
    assert mailbox.same_as_server()
    events = mailbox.events()
    assert (events["folder.reset"], events["message.moved"], events["message.deleted"]) == (1, 0, 0)


@pytest.mark.parametrize("flags", [b"", b"\\Answered", b"\\Seen"])
def test_flags_changed_around_a_renumbering_are_told_though_the_mail_comes_late(
    follow: Follow, flags: bytes
) -> None:
    """What the message had before is kept until it is known again, whatever is tidied up meanwhile."""
    mailbox = follow([b"Subject: nameless\r\n\r\nText\r\n"])
    mailbox.server.flags[b"INBOX", 1] = b"\\Seen"
    mailbox.sync(2)
    mailbox.server.reset(first=100)
    mailbox.server.flags[b"INBOX", 100] = flags
    mailbox.server.refused = {(b"INBOX", 100)}
    mailbox.sync()
    assert mailbox.events()["folder.reset"] == 1
    assert mailbox.messages("missing") == 1

    tidy(SYSTEM, mailbox.runtime)
    mailbox.server.refused = set()
    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert mailbox.events()["message.flags_changed"] == (flags != b"\\Seen")
    tidy(SYSTEM, mailbox.runtime)
    assert [row.state for row in mailbox.rows("SELECT state FROM mailwright.folder_epochs")] == ["current"]


def test_a_message_that_refuses_its_header_does_not_stop_a_renumbering(follow: Follow) -> None:
    mailbox = follow(mails(5))
    mailbox.sync()
    mailbox.server.reset()
    mailbox.server.refused = {(b"INBOX", 3)}

    mailbox.sync(4)

    assert mailbox.events()["folder.reset"] == 1
    assert mailbox.stored().keys() == {1, 2, 3, 4, 5}
    assert mailbox.stored()[3] is None


def test_true_duplicates_are_two_messages_and_a_copy_is_one_in_two_places(follow: Follow) -> None:
    twin = mail(1)
    mailbox = follow({b"INBOX": [twin, twin], b"Archive": []})
    mailbox.sync()
    assert mailbox.messages() == 2
    mailbox.server.add(twin, b"Archive")

    mailbox.sync(2)

    assert mailbox.messages() == 2
    assert mailbox.same_as_server()
    assert mailbox.events()["message.copied"] == 1
    mailbox.server.add(twin, b"Archive")
    mailbox.server.add(twin, b"Archive")
    mailbox.sync(2)
    assert mailbox.messages() == 3
    assert mailbox.same_as_server()


def test_an_expunged_message_and_an_identical_arrival(follow: Follow) -> None:
    mailbox = follow([mail(1), mail(2)])
    mailbox.sync()
    mailbox.server.add(mail(2))
    del mailbox.server.folders[b"INBOX"][2]

    mailbox.sync(3)

    assert mailbox.stored() == {1: mail(1), 3: mail(2)}
    assert mailbox.messages() == 2


@pytest.mark.parametrize(("source", "target"), [(b"INBOX", b"Zuletzt"), (b"Zuletzt", b"INBOX")])
def test_a_move_is_one_message_whichever_folder_is_seen_first(
    follow: Follow, source: bytes, target: bytes
) -> None:
    mailbox = follow(THREE)
    mailbox.sync()
    before = mailbox.rows("SELECT uid FROM mailwright.messages ORDER BY id")
    mailbox.server.add(mailbox.server.folders[source].pop(2), target)

    mailbox.sync(3)

    assert mailbox.rows("SELECT uid FROM mailwright.messages WHERE state = 'present' ORDER BY id") == before
    assert mailbox.same_as_server()
    events = mailbox.events()
    assert (events["message.deleted"], events["message.received"]) == (0, 0)
    assert events["message.moved"] == 1


def test_a_message_is_deleted_only_after_a_full_pass_begun_later(follow: Follow) -> None:
    mailbox = follow(THREE)
    mailbox.sync()
    del mailbox.server.folders[b"INBOX"][2]
    mailbox.server.folder_replies = {b"Zuletzt": b"NO [NOPERM] not now"}

    mailbox.sync(2)
    assert mailbox.messages("missing") == 1
    assert mailbox.events()["message.deleted"] == 0
    mailbox.server.folder_replies = {}
    mailbox.sync()

    assert mailbox.messages("missing") == 0
    assert mailbox.events()["message.deleted"] == 1


def test_only_the_folders_that_were_chosen_are_followed(follow: Follow) -> None:
    mailbox = follow(THREE, folders=["inbox", "Zuletzt"])

    mailbox.sync()

    assert [len(mailbox.stored(name)) for name in ("INBOX", "Middle", "Zuletzt")] == [3, 0, 2]
    assert not any(b'EXAMINE "Middle"' in line for line in mailbox.server.lines)


def test_folders_that_cannot_be_selected_are_known_and_left_alone(follow: Follow) -> None:
    mailbox = follow(THREE)
    mailbox.server.attributes = {b"Middle": b"\\Noselect \\HasChildren"}

    mailbox.sync(2)

    assert not mailbox.folder("Middle").selectable
    assert not any(b'"Middle"' in line for line in mailbox.server.lines)
    assert mailbox.schedule().failures == 0


@pytest.mark.parametrize("reply", [b"NO [NONEXISTENT] gone", b"NO Mailbox doesn't exist: Middle"])
def test_a_folder_that_is_listed_and_not_there_has_no_mail(follow: Follow, reply: bytes) -> None:
    mailbox = follow(THREE)
    mailbox.sync()
    mailbox.server.folder_replies = {b"Middle": reply}

    mailbox.sync()

    assert mailbox.stored("Middle") == {}
    assert mailbox.events()["message.deleted"] == 0, "it may be a slip; all must have been looked at first"
    mailbox.sync(4)
    assert mailbox.events()["message.deleted"] == 2


def test_a_folder_that_was_not_there_for_a_moment_loses_nothing(follow: Follow) -> None:
    mailbox = follow(THREE)
    mailbox.sync()
    mailbox.server.folder_replies = {b"Middle": b"NO [NONEXISTENT] gone"}
    mailbox.sync(2)
    mailbox.server.folder_replies = {}

    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert mailbox.messages() == 7
    assert mailbox.events()["message.deleted"] == 0


def test_a_folder_of_which_only_the_name_is_left_has_no_mail(follow: Follow) -> None:
    mailbox = follow(THREE)
    mailbox.sync()
    mailbox.server.attributes[b"Middle"] = b"\\Noselect \\HasChildren"

    mailbox.sync(2)

    assert mailbox.stored("Middle") == {}
    assert mailbox.messages() == 5
    assert mailbox.events()["message.deleted"] == 2
    assert mailbox.events()["folder.vanished"] == 1
    assert not mailbox.folder("Middle").followed


def test_a_message_that_moves_to_and_fro_behind_the_looks_is_not_deleted(follow: Follow) -> None:
    """Each time one folder was looked at and the next was not yet, it is moved from the next to the first."""
    mailbox = follow({b"INBOX": [], b"Archive": [b"Subject: wanders\r\n\r\n."]})
    mailbox.sync()
    folders, uids = mailbox.server.folders, iter(range(2, 100))

    def move(source: bytes, target: bytes) -> None:
        (content,) = folders[source].values()
        folders[source].clear()
        folders[target][next(uids)] = content

    def behind(name: str, _rest: bytes) -> None:
        if name == "LIST" and not folders[b"Archive"]:
            move(b"INBOX", b"Archive")
        if name == "EXAMINE" and b"Archive" in _rest and not folders[b"INBOX"]:
            move(b"Archive", b"INBOX")

    mailbox.server.before = behind
    mailbox.sync(passes=4)
    mailbox.server.before = lambda _name, _rest: None
    assert mailbox.events()["message.deleted"] == 0
    mailbox.sync(passes=2)

    events = mailbox.events()
    assert mailbox.messages("present") == 1
    assert (events["message.deleted"], events["message.received"]) == (0, 0)


def test_a_message_moved_out_and_back_between_two_looks_is_no_new_mail(follow: Follow) -> None:
    same = b"Subject: twice\r\n\r\n."
    mailbox = follow({b"INBOX": [b"Subject: wanders\r\n\r\n.", same], b"Archive": []})
    mailbox.sync(2)
    inbox = mailbox.server.folders[b"INBOX"]
    inbox[9] = inbox.pop(1)
    mailbox.server.add(same)  # a true duplicate

    mailbox.sync(3)

    assert mailbox.same_as_server()
    events = mailbox.events()
    assert (events["message.deleted"], events["message.received"], events["message.moved"]) == (0, 1, 1)
    assert mailbox.messages("present") == 3


def test_as_many_went_as_a_look_that_was_broken_off_had_stored(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailbox = follow({b"INBOX": mails(NEWEST_FLAGS + 5)})
    mailbox.sync()
    inbox = mailbox.server.folders[b"INBOX"]
    mailbox.server.add(mail(50))
    mailbox.server.add(mail(51))
    with monkeypatch.context() as broken:
        broken.setattr(folder, "_advance", _break_off)
        sync_now(mailbox.runtime, mailbox.id)
    assert len(mailbox.stored()) == NEWEST_FLAGS + 7
    del inbox[1], inbox[3]

    mailbox.sync()

    assert mailbox.same_as_server()


def _break_off(*_: object, **__: object) -> None:
    raise Disconnected("The server ended the session.")
