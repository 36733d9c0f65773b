"""What people do with mail that waits."""

import email
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from config.errors import Conflict
from lab.servers.smtp_faults import Answer, Hang
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


def test_what_is_bumped_goes_first(post: Make) -> None:
    mail = post(connections_per_account=1)
    first, second = mail.enqueue(subject="first"), mail.enqueue(subject="second")
    with mail.runtime.db.begin() as session:
        outbound.bump(SYSTEM, session, second, 50)

    mail.dispatch()

    subjects = [email.message_from_bytes(taken.content)["subject"] for taken in mail.server.accepted]
    assert subjects == ["second", "first"]
    assert mail.events(first) == ["outbound.queued", "outbound.sent"]
    assert mail.events(second)[1] == "outbound.rescheduled"


def test_a_message_goes_at_another_time(post: Make) -> None:
    mail = post()
    uid = mail.enqueue(not_before=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    with mail.runtime.db.begin() as session:
        outbound.reschedule(SYSTEM, session, uid, datetime.now(UTC))
    mail.dispatch()
    assert mail.state(uid) == "sent"

    other = mail.enqueue()
    with mail.runtime.db.begin() as session:
        outbound.reschedule(SYSTEM, session, other, datetime.now(UTC) + timedelta(hours=1))
    mail.dispatch()
    assert mail.state(other) == "queued"
    with mail.runtime.db.begin() as session, pytest.raises(Conflict, match="expires at"):
        outbound.reschedule(SYSTEM, session, other, datetime.now(UTC) + timedelta(days=30))


def test_a_message_is_given_up_now_or_later(post: Make) -> None:
    mail = post()
    now, later = mail.enqueue(), mail.enqueue()
    soon = datetime.now(UTC) + timedelta(seconds=0.3)
    with mail.runtime.db.begin() as session:
        assert outbound.expire(SYSTEM, session, now) == "expired"
        assert outbound.expire(SYSTEM, session, later, soon) == "queued"
    while datetime.now(UTC) <= soon:
        time.sleep(0.05)

    mail.dispatch()

    assert (mail.state(now), mail.state(later)) == ("expired", "expired")
    assert mail.events(now) == ["outbound.queued", "outbound.expired"]
    assert not mail.server.accepted


def test_a_mailbox_whose_sending_is_paused_sends_nothing_until_then(post: Make) -> None:
    mail = post()
    uid = mail.enqueue()
    with mail.runtime.db.begin() as session:
        outbound.pause(SYSTEM, session, mail.address, reason="wrong prices")

    done = mail.dispatch()

    assert mail.state(uid) == "queued"
    assert not done.more, "a paused lane must not keep the dispatchers busy"
    why = ask(mail, uid)
    assert (why.state, why.next_at) == ("stopped", None)
    assert "wrong prices" in why.reason
    with mail.runtime.db.begin() as session:
        outbound.resume(SYSTEM, session, mail.address)
    mail.dispatch()
    assert mail.state(uid) == "sent"


def test_a_pause_ends_by_its_time(post: Make) -> None:
    mail = post()
    uid = mail.enqueue()
    until = datetime.now(UTC) + timedelta(seconds=0.5)
    with mail.runtime.db.begin() as session:
        outbound.pause(SYSTEM, session, mail.address, until=until)
    assert ask(mail, uid).next_at == until
    while datetime.now(UTC) <= until:
        time.sleep(0.05)

    mail.dispatch()

    assert mail.state(uid) == "sent"


def test_why_tells_what_each_message_waits_for(post: Make) -> None:
    mail = post(
        {"rcpt": [Answer(b"451 4.2.0 grey\r\n")], "dot": [Hang()]}, smtp_timeout=1, messages_per_minute=3
    )
    deferred = mail.enqueue()
    mail.dispatch()
    assert ask(mail, deferred).state == "waiting"
    assert "451 4.2.0 grey" in ask(mail, deferred).reason

    doubtful = mail.enqueue()
    mail.dispatch()
    assert ask(mail, doubtful).state == "uncertain"
    assert "outbox settle" in ask(mail, doubtful).reason

    later = mail.enqueue(not_before=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    assert "not to go before" in ask(mail, later).reason

    sent, limited = mail.enqueue(), mail.enqueue()
    mail.dispatch()
    assert ask(mail, sent).state == "over"
    assert ask(mail, limited).state == "waiting"
    assert "3 messages a minute" in ask(mail, limited).reason

    with mail.runtime.db.begin() as session:
        outbound.hold(SYSTEM, session, limited, "look first")
    assert ask(mail, limited).reason.startswith("It is held by system: look first")


def test_why_tells_of_a_server_that_is_down_and_of_a_provider_that_rests(post: Make) -> None:
    mail = post()
    uid = mail.enqueue()
    assert ask(mail, uid).reason == "It is due now; a worker takes it within a tick."
    mail.server.finish()
    mail.dispatch()
    assert ask(mail, uid).state == "unreachable"
    assert "refused the connection" in ask(mail, uid).reason

    mail.sql("UPDATE mailwright.providers SET disabled = true")
    assert "is disabled" in ask(mail, uid).reason


def ask(mail: Post, uid: UUID) -> outbound.Why:
    with mail.runtime.db.begin() as session:
        return outbound.why(SYSTEM, session, uid, mail.runtime.settings)


def test_the_list_is_filtered(post: Make) -> None:
    mail = post()
    sent = mail.enqueue(["a@r.example", "b@r.example"])
    mail.dispatch()
    with mail.runtime.db.begin() as session:
        message = {"to": {"address": "C@r.example", "name": "Cleo"}, "text": "x"}
        waiting = outbound.enqueue(SYSTEM, session, mail.address, message, "key-1").uid

    def listed(**filters: Any) -> list[UUID]:
        with mail.runtime.db.begin() as session:
            return [line.id for line in outbound.listing(SYSTEM, session, **filters)]

    assert listed() == [waiting, sent]
    assert listed(recipient="B@r.example") == [sent]
    assert listed(recipient="c@r.example") == [waiting]
    assert listed(key="key-1") == [waiting]
    assert listed(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert listed(mailbox=mail.address, recipient="a@r.example", key="key-1") == []
