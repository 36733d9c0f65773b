"""Changes made here arrive on a real Dovecot, and each is told once, as ours."""

from collections.abc import Callable, Sequence

import pytest

from config.errors import Conflict
from tasks.access import SYSTEM
from tasks.sync import engine
from tasks.sync.commands import engine as engine_of_commands
from tasks.sync.commands import wishes
from tasks.sync.folders import StoredFolder
from tasks.sync.work import Work
from tests.mail.commands.conftest import Box
from tests.mail.sync.odd_imap import mail

Make = Callable[..., Box]
LACKING = pytest.mark.parametrize("lacking", ["", "MOVE", "MOVE UIDPLUS"])


def test_marks_show_at_once_and_arrive_and_are_told_once_as_ours(box: Make) -> None:
    mailbox = box(1, 2, 3)

    mailbox.ask(wishes.mark, [1, 2], add=["\\Seen", "\\Flagged"], remove=[])

    assert mailbox.shown() == {1: "\\Flagged \\Seen", 2: "\\Flagged \\Seen", 3: ""}
    mailbox.sync(3)
    assert mailbox.there() == mailbox.here()
    assert mailbox.there() == {1: ("\\Flagged", "\\Seen"), 2: ("\\Flagged", "\\Seen"), 3: ()}
    assert mailbox.states() == ["done", "done"]
    told = mailbox.events("message.flags_changed")
    assert [(each["imap_uid"], each["origin"]) for each in told] == [(1, "mailwright"), (2, "mailwright")]


@LACKING
def test_a_move_is_one_message_that_moved_whatever_the_server_can(box: Make, lacking: str) -> None:
    mailbox = box(1, 2, 3, lacking=lacking)

    mailbox.ask(wishes.move, [1, 2], "Archive")

    assert set(mailbox.shown("Archive")) == {1, 2}
    assert set(mailbox.shown()) == {3}
    mailbox.sync(3)
    assert set(mailbox.there("Archive")) == {1, 2}
    assert mailbox.states() == ["done", "done"]
    assert mailbox.here("Archive") == mailbox.there("Archive")
    assert mailbox.here() == mailbox.there()
    assert mailbox.rows("SELECT count(*) AS n FROM mailwright.messages")[0].n == 3
    assert mailbox.events("message.deleted") == mailbox.events("message.received") == []
    if "UIDPLUS" in lacking:  # then they cannot be removed, only marked
        assert mailbox.there()[1] == ("\\Deleted",)
        assert {each["origin"] for each in mailbox.events("message.copied")} == {"mailwright"}
    else:
        assert set(mailbox.there()) == {3}
        moves = mailbox.events("message.moved")
        assert [(each["folder"], each["left"], each["origin"]) for each in moves] == [
            ("Archive", "INBOX", "mailwright")
        ] * 2


@pytest.mark.parametrize("trusted", [True, False])
def test_what_another_program_removes_right_after_our_move_is_gone(
    box: Make, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    mailbox = box(1, 2)
    mailbox.rows("UPDATE mailwright.providers SET trust_condstore = :trusted", trusted=trusted)

    def change_and_be_overtaken(work: Work, folders: Sequence[StoredFolder]) -> int:
        done = engine_of_commands.run_commands(work, folders)
        if done:
            with mailbox.client() as program:
                program.select_folder("Archive")
                program.delete_messages([1])
                program.expunge([1])
        return done

    monkeypatch.setattr(engine, "run_commands", change_and_be_overtaken)
    mailbox.ask(wishes.move, [1], "Archive")
    mailbox.sync(2)

    assert mailbox.there("Archive") == mailbox.here("Archive") == {}
    assert mailbox.here() == mailbox.there() == {2: ()}
    assert [each["origin"] for each in mailbox.events("message.moved")] == ["mailwright"]
    assert len(mailbox.events("message.deleted")) == 1


@LACKING
def test_a_removal_takes_no_other_mail_that_somebody_has_marked(box: Make, lacking: str) -> None:
    mailbox = box(1, 2, 3, lacking=lacking)
    with mailbox.client() as program:
        program.select_folder("INBOX")
        program.set_flags([3], [b"\\Deleted"])

    mailbox.ask(wishes.delete, [1], permanently=True)

    assert set(mailbox.shown()) == {2, 3}
    mailbox.sync(3)
    assert 3 in mailbox.there()
    assert mailbox.states() == ["done"]
    if "UIDPLUS" in lacking:
        assert mailbox.there()[1] == ("\\Deleted",)
        note = mailbox.rows("SELECT last_error FROM mailwright.commands")[0].last_error
        assert "neither MOVE nor UIDPLUS" in note
    else:
        assert set(mailbox.there()) == {2, 3}
        assert [each["origin"] for each in mailbox.events("message.deleted")] == ["mailwright"]


def test_deleting_puts_into_trash_and_a_second_time_needs_to_be_meant(box: Make) -> None:
    mailbox = box(1)
    mailbox.ask(wishes.delete, [1])
    mailbox.sync(2)

    assert set(mailbox.there("Trash")) == {1}
    with pytest.raises(Conflict, match="--permanently"):
        mailbox.ask(wishes.delete, [1])
    mailbox.ask(wishes.delete, [1], permanently=True)
    mailbox.sync(2)

    assert mailbox.there("Trash") == {}
    assert len(mailbox.events("message.deleted")) == 1


@LACKING
def test_a_copy_is_one_message_in_two_places(box: Make, lacking: str) -> None:
    mailbox = box(1, lacking=lacking)
    mailbox.ask(wishes.mark, [1], add=["\\Seen"], remove=[])
    mailbox.ask(wishes.copy, [1], "Archive")

    mailbox.sync(3)

    assert mailbox.there() == mailbox.here() == mailbox.there("Archive") == mailbox.here("Archive")
    assert mailbox.rows("SELECT count(*) AS n FROM mailwright.messages")[0].n == 1
    assert [each["origin"] for each in mailbox.events("message.copied")] == ["mailwright"]
    assert mailbox.events("message.received") == []


def test_wishes_for_one_message_are_kept_in_their_order(box: Make) -> None:
    mailbox = box(1, 2)
    mailbox.ask(wishes.move, [1], "Archive")
    mailbox.ask(wishes.mark, [1], add=["\\Flagged"], remove=[])
    mailbox.ask(wishes.move, [1], "Junk")
    mailbox.ask(wishes.mark, [1], add=["\\Seen"], remove=["\\Flagged"])

    assert mailbox.shown("Junk") == {1: "\\Seen"}
    mailbox.sync(2)

    assert mailbox.there("Junk") == mailbox.here("Junk") == {1: ("\\Seen",)}
    assert [each["left"] for each in mailbox.events("message.moved")] == ["INBOX", "Archive"]
    assert mailbox.states() == ["done"] * 4


def test_a_change_by_somebody_else_is_told_apart(box: Make) -> None:
    mailbox = box(1)
    with mailbox.client() as program:
        program.select_folder("INBOX")
        program.set_flags([1], [b"\\Answered"])
    mailbox.ask(wishes.mark, [1], add=["\\Seen"], remove=[])

    mailbox.sync(2)

    told = [(each["flags"], each["origin"]) for each in mailbox.events("message.flags_changed")]
    assert told == [(["\\Seen"], "mailwright"), (["\\Answered", "\\Seen"], "server")]


def test_a_renumbered_folder_is_looked_up_again_and_the_right_mail_moves(box: Make) -> None:
    mailbox = box(1, 2, 3)
    mailbox.ask(wishes.move, [1], "Archive")
    with mailbox.client() as program:  # 1 goes to the end: its old number will be another's
        program.select_folder("INBOX")
        program.copy([1], "Drafts")
        program.delete_messages([1])
        program.expunge()
        program.select_folder("Drafts")
        program.move([1], "INBOX")
    mailbox.server.reset_uidvalidity(mailbox.address)

    mailbox.sync(3)

    assert set(mailbox.there("Archive")) == {1}
    assert set(mailbox.there()) == {2, 3}
    assert mailbox.here() == mailbox.there()
    assert mailbox.states() == ["done"]


def test_a_message_that_is_gone_ends_the_wish(box: Make) -> None:
    mailbox = box(1, 2)
    mailbox.ask(wishes.move, [1], "Archive")
    with mailbox.client() as program:
        program.select_folder("INBOX")
        program.delete_messages([1])
        program.expunge()

    mailbox.sync(3)

    assert mailbox.states() == ["void"]
    assert mailbox.there("Archive") == {}
    assert [each["origin"] for each in mailbox.events("message.deleted")] == ["server"]


def test_an_appended_message_arrives_whole(box: Make) -> None:
    mailbox = box(1)
    mailbox.asked(
        lambda session: wishes.append(session, SYSTEM, mailbox.address, "Archive", mail(7), ["\\Seen"])
    )

    mailbox.sync(2)

    assert mailbox.there("Archive") == mailbox.here("Archive") == {7: ("\\Seen",)}
    assert mailbox.states() == ["done"]
    assert mailbox.rows("SELECT content FROM mailwright.commands")[0].content is None


def test_a_reply_sent_from_here_marks_what_it_answers(box: Make) -> None:
    mailbox = box(1, 2)
    mailbox.rows(
        "INSERT INTO mailwright.outbox (mailbox_id, state, expires_at, principal, message_id) "
        "VALUES (:id, 'sent', now() + interval '1 day', 'test', '<7@x.example>')",
        id=mailbox.id,
    )
    ours, theirs = (b"In-Reply-To: <%d@x.example>\r\n" % number for number in (1, 2))
    mailbox.server.deliver(mailbox.address, ours + mail(7), "Sent")
    mailbox.server.deliver(mailbox.address, theirs + mail(8), "Sent")  # written with another program

    mailbox.sync(3)

    assert mailbox.there() == mailbox.here() == {1: ("\\Answered",), 2: ()}
    assert mailbox.states() == ["done"]
