"""Changes made here arrive on a real Dovecot, and each is told once, as ours."""

from collections.abc import Callable

import pytest

from tasks.sync.commands import wishes
from tests.mail.commands.conftest import Box

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
