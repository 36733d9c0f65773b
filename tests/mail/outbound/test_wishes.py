"""What people do with mail that waits."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from config.errors import Conflict
from lab.servers.smtp_faults import Answer
from tasks import outbound
from tasks.access import SYSTEM
from tests.mail.outbound.conftest import Post

Make = Callable[..., Post]


def test_a_held_message_stays_until_it_is_released(post: Make) -> None:
    mail = post()
    uid = mail.enqueue()
    with mail.runtime.db.begin() as session:
        outbound.hold(SYSTEM, session, uid, "the price is wrong")

    mail.dispatch()

    assert mail.state(uid) == "held"
    assert "the price is wrong" in mail.show(uid)["held_for"]
    assert not mail.server.accepted

    with mail.runtime.db.begin() as session:
        outbound.release(SYSTEM, session, uid)
    mail.dispatch()

    assert mail.state(uid) == "sent"
    assert mail.events(uid) == ["outbound.queued", "outbound.held", "outbound.released", "outbound.sent"]


def test_a_released_message_still_waits_for_its_time(post: Make) -> None:
    mail = post()
    uid = mail.enqueue(not_before=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    with mail.runtime.db.begin() as session:
        outbound.hold(SYSTEM, session, uid)
        outbound.release(SYSTEM, session, uid)

    mail.dispatch()

    assert mail.state(uid) == "queued"


def test_a_deferred_message_that_was_held_goes_on_to_those_who_lack_it(post: Make) -> None:
    mail = post({"rcpt": [None, Answer(b"451 4.3.0 later\r\n")]})
    uid = mail.enqueue(["a@r.example", "b@r.example"])
    mail.dispatch()
    with mail.runtime.db.begin() as session:
        outbound.hold(SYSTEM, session, uid)
        outbound.release(SYSTEM, session, uid)

    mail.due_again()
    mail.dispatch()

    assert [taken.recipients for taken in mail.server.accepted] == [("a@r.example",), ("b@r.example",)]


def test_what_is_over_cannot_be_held(post: Make) -> None:
    mail = post()
    uid = mail.enqueue()
    mail.dispatch()

    with mail.runtime.db.begin() as session, pytest.raises(Conflict, match="it is sent"):
        outbound.hold(SYSTEM, session, uid)
