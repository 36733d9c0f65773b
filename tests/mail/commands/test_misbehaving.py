"""Answers that are lost, refusals, numbers that lie: nothing is done twice, and never to the wrong mail."""

from collections.abc import Callable

import pytest

from tasks.sync.commands import wishes
from tests.mail.commands.changing_imap import FULL, WITHOUT_MOVE
from tests.mail.commands.conftest import Odd
from tests.mail.sync.odd_imap import mail

Make = Callable[..., Odd]


def steal_at(mailbox: Odd, command: str) -> None:
    """Another process takes the lease when the server hears ``command``: what it then does is not stored."""

    def steal(name: str, _rest: bytes) -> None:
        if name == command:
            mailbox.server.before = lambda _name, _rest: None
            mailbox.rows(
                "UPDATE mailwright.schedule SET lease_token = lease_token + 1, lease_owner = 'thief', "
                "lease_until = now()"
            )

    mailbox.server.before = steal


@pytest.mark.parametrize("how", ["hung up", "died"])
@pytest.mark.parametrize("retried", ["before the sync saw it", "after"])
def test_marks_whose_answer_was_lost_are_told_once_as_ours(odd: Make, how: str, retried: str) -> None:
    mailbox = odd()
    mailbox.ask(wishes.mark, [1, 2], add=["\\Seen"], remove=[])
    if how == "died":
        steal_at(mailbox, "STORE")
    mailbox.server.lost = {"STORE"} if how == "hung up" else set()
    mailbox.sync()
    assert mailbox.states() == ["queued", "queued"]
    mailbox.server.lost = set()

    if retried == "after":
        mailbox.sync()
    mailbox.later()
    mailbox.sync(2)

    assert mailbox.states() == ["done", "done"]
    told = mailbox.told("message.flags_changed")
    assert [(each["imap_uid"], each["origin"]) for each in told] == [(1, "mailwright"), (2, "mailwright")]


@pytest.mark.parametrize("copyuid", [True, False])
@pytest.mark.parametrize(
    ("capabilities", "lost"),
    [
        (FULL, "nothing"),
        (FULL, "MOVE"),
        (FULL, "the lease"),
        (WITHOUT_MOVE, "nothing"),
        (WITHOUT_MOVE, "COPY"),
        (WITHOUT_MOVE, "STORE"),
        (WITHOUT_MOVE, "EXPUNGE"),
    ],
    ids=lambda value: value.decode().split()[-1] if isinstance(value, bytes) else value,
)
def test_a_move_is_made_once_whatever_is_lost(
    odd: Make, capabilities: bytes, copyuid: bool, lost: str
) -> None:
    mailbox = odd(capabilities)
    mailbox.server.copyuid = copyuid
    mailbox.ask(wishes.move, [1, 2], "Archive")
    mailbox.server.lost = {lost}
    if lost == "the lease":
        steal_at(mailbox, "MOVE")

    mailbox.sync()
    assert mailbox.shown("Archive").keys() >= {1, 2, 9}
    mailbox.server.lost = set()
    mailbox.later()
    mailbox.sync(3)
    mailbox.later()
    mailbox.sync(2)

    assert mailbox.holds(b"INBOX") == [mail(3), mail(4)]
    assert mailbox.holds(b"Archive") == [mail(1), mail(2), mail(9)]
    assert mailbox.same_as_server()
    assert mailbox.states() == ["done", "done"]
    assert mailbox.messages() == 5
    assert mailbox.events()["message.deleted"] == mailbox.events()["message.received"] == 0
    moved, copied = mailbox.told("message.moved"), mailbox.told("message.copied")
    assert {each["origin"] for each in [*moved, *copied]} == {"mailwright"}
    assert len(moved) == 2
    assert len(copied) in {0, 2}  # where the sync finds the copies first, they are told so


@pytest.mark.parametrize("lost", ["STORE", "EXPUNGE", "the lease"])
def test_a_removal_is_made_once_whatever_is_lost(odd: Make, lost: str) -> None:
    mailbox = odd()
    mailbox.server.flags[b"INBOX", 3] = b"\\Deleted"  # somebody else's, and not asked for
    mailbox.ask(wishes.delete, [1, 2], permanently=True)
    mailbox.server.lost = {lost}
    if lost == "the lease":
        steal_at(mailbox, "EXPUNGE")

    mailbox.sync()
    assert set(mailbox.shown()) == {3, 4}
    mailbox.server.lost = set()
    mailbox.later()
    mailbox.sync(3)
    mailbox.later()
    mailbox.sync()

    assert mailbox.holds(b"INBOX") == [mail(3), mail(4)]
    assert mailbox.states() == ["done", "done"]
    assert [each["origin"] for each in mailbox.told("message.deleted")] == ["mailwright"] * 2


def test_an_uidvalidity_that_repeats_harms_no_other_mail(odd: Make) -> None:
    mailbox = odd()
    mailbox.ask(wishes.delete, [1], permanently=True)
    mailbox.ask(wishes.move, [2], "Archive")
    held = mailbox.server.folders[b"INBOX"]
    held[1], held[2] = mail(71), mail(72)  # the same numbers, other mail

    mailbox.sync()

    assert mailbox.holds(b"INBOX") == [mail(3), mail(4), mail(71), mail(72)]
    assert mailbox.holds(b"Archive") == [mail(9)]
    assert mailbox.states() == ["failed", "failed"]
    assert mailbox.server.commands["STORE"] == mailbox.server.commands["MOVE"] == 0
    assert all("another message" in each["reason"] for each in mailbox.told("command.failed"))
    assert len(mailbox.told("command.failed")) == 2


def test_the_same_message_id_over_other_bytes_is_another_mail(odd: Make) -> None:
    mailbox = odd()
    mailbox.ask(wishes.delete, [1], permanently=True)
    mailbox.server.folders[b"INBOX"][1] = mail(1) + b"and more"

    mailbox.sync()

    assert mailbox.states() == ["failed"]
    assert len(mailbox.holds(b"INBOX")) == 4


def test_a_new_uidvalidity_between_wish_and_run_moves_the_right_mail(odd: Make) -> None:
    mailbox = odd()
    mailbox.ask(wishes.move, [1], "Archive")
    mailbox.server.reset(b"INBOX", first=0x20)
    held = mailbox.server.folders[b"INBOX"]
    held[1] = mail(71)  # under the number of the one that is meant

    mailbox.sync()
    mailbox.later()
    mailbox.sync(2)

    assert mailbox.holds(b"Archive") == [mail(1), mail(9)]
    assert mail(71) in mailbox.holds(b"INBOX")
    assert mailbox.states() == ["done"]


def test_of_many_the_one_refused_fails_alone_and_says_why(odd: Make) -> None:
    mailbox = odd()
    mailbox.ask(wishes.move, [1, 2, 3], "Archive")
    mailbox.server.no = {2}

    mailbox.sync(2)

    assert mailbox.states() == ["done", "failed", "done"]
    assert set(mailbox.shown("Archive")) == {1, 3, 9}
    assert set(mailbox.shown()) == {2, 4}  # back to what the server says
    (failed,) = mailbox.told("command.failed")
    assert "not this one" in failed["reason"]


def test_a_refusal_after_a_part_was_done_ends_each_command_once(odd: Make) -> None:
    mailbox = odd(WITHOUT_MOVE)
    mailbox.ask(wishes.move, [1, 2, 3], "Archive")
    mailbox.server.folders[b"INBOX"][3] = mail(73)  # another mail under that number

    def refuse_the_second(name: str, _rest: bytes) -> None:
        if name == "STORE":  # the copies are made by then
            mailbox.server.no = {2}

    mailbox.server.before = refuse_the_second
    mailbox.sync(3)

    assert mailbox.holds(b"Archive") == [mail(1), mail(2), mail(9)]
    assert mailbox.holds(b"INBOX") == [mail(2), mail(4), mail(73)]
    assert mailbox.states() == ["done", "failed", "failed"]
    assert len(mailbox.told("command.failed")) == 2
    assert mailbox.server.commands["COPY"] == 1


def test_a_busy_server_is_asked_again_and_given_up_in_the_end(odd: Make) -> None:
    mailbox = odd()
    mailbox.ask(wishes.mark, [1], add=["\\Flagged"], remove=["\\Seen"])
    mailbox.server.no, mailbox.server.answer_no = {1}, b"NO [UNAVAILABLE] later"

    for turn in range(8):
        assert mailbox.states() == ["queued"], turn
        assert mailbox.shown()[1] == "\\Flagged"
        mailbox.later()
        mailbox.sync()
    mailbox.later()
    mailbox.sync()

    assert mailbox.states() == ["failed"]
    assert mailbox.shown()[1] == ""
    assert "8 tries" in mailbox.told("command.failed")[0]["reason"]


def test_a_server_that_keeps_no_such_flag_is_not_believed(odd: Make) -> None:
    mailbox = odd()
    mailbox.ask(wishes.mark, [1], add=["\\Flagged"], remove=[])

    def forget(name: str, _rest: bytes) -> None:
        if name == "FETCH":
            mailbox.server.flags.clear()

    mailbox.server.before = forget
    mailbox.sync(2)

    assert mailbox.states() == ["failed"]
    assert mailbox.shown()[1] == ""
    assert mailbox.told("message.flags_changed") == []


def test_a_hundred_marks_are_one_store(odd: Make) -> None:
    mailbox = odd()
    for number in range(10, 110):
        mailbox.server.add(mail(number))
    mailbox.sync()

    mailbox.ask(wishes.mark, range(10, 110), add=["\\Seen"], remove=[])
    mailbox.sync()

    assert mailbox.states() == ["done"] * 100
    assert mailbox.server.commands["STORE"] == 1
