"""What is left when a worker ends at the worst moment, and what the next lease makes of it."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from config.errors import LeaseLost
from lab.ports import wait_until
from lab.servers.smtp_faults import Hang
from schema.ids import uuid7
from tasks.mailboxes import Protocol, route
from tasks.outbound import store
from tasks.outbound.compose import compose
from tasks.outbound.connections import Connections
from tasks.outbound.outcomes import judge
from tasks.outbound.place import Place
from tasks.outbound.sender import fix, sender_of
from tasks.outbound.values import read
from tasks.wire.smtp import Delivery, Outcome, RecipientResult, Reply, Stage
from tests.mail.outbound.conftest import Post

Make = Callable[..., Post]


def claimed(mail: Post) -> tuple[store.Lane, list[store.Item]]:
    """Take lane and messages as a worker does that then ends without a word; nothing is written of them."""
    lane = store.claim_lane(mail.runtime.db, "a worker that will die", 60, 8)
    assert lane is not None
    items, _, _ = store.claim(mail.runtime.db, lane, way(mail), 50, Place())
    return lane, items


def way(mail: Post) -> Any:
    with mail.runtime.db.begin() as session:
        return route(session, mail.runtime.keyring, mail.mailbox_id, Protocol.SMTP)


def armed(mail: Post) -> tuple[store.Lane, list[store.Item]]:
    lane, items = claimed(mail)
    for item in items:
        item.attempt = uuid7()
        fix(item, compose(read(item.request or {}), sender_of(way(mail)), item.uid, datetime.now(UTC)))
    assert len(store.advance(mail.runtime.db, lane, way(mail), (), items)) == len(items)
    return lane, items


def lease_runs_out(mail: Post) -> None:
    mail.sql(
        "UPDATE mailwright.outbox_lanes SET lease_until = now() - interval '1 second', next_due_at = now()"
    )


def test_what_was_only_taken_in_hand_is_sent_by_the_next(post: Make) -> None:
    mail = post()
    uid = mail.enqueue()
    claimed(mail)
    lease_runs_out(mail)

    mail.dispatch()

    assert mail.state(uid) == "sent"
    assert len(mail.server.accepted) == 1


def test_armed_ones_whose_data_never_began_are_sent_by_the_next(post: Make) -> None:
    mail = post()
    uid = mail.enqueue()
    armed(mail)
    lease_runs_out(mail)

    mail.dispatch()

    assert mail.state(uid) == "sent"
    assert [attempt["number"] for attempt in mail.show(uid)["attempts"]] == [1]


def test_an_armed_one_whose_data_began_is_uncertain_and_stays(post: Make) -> None:
    mail = post()
    began, not_begun = mail.enqueue(), mail.enqueue()
    _, items = armed(mail)
    first = next(item for item in items if item.uid == began)
    assert first.attempt is not None
    mail.runtime.kept(Connections).witness.note(first.attempt)
    lease_runs_out(mail)

    mail.dispatch()

    assert mail.state(began) == "uncertain"
    assert mail.events(began) == ["outbound.queued", "outbound.uncertain"]
    assert mail.state(not_begun) == "sent"
    assert len(mail.server.accepted) == 1


def test_an_outcome_noted_with_the_next_data_is_settled_not_doubted(post: Make) -> None:
    """Ten are committed together; a worker that ends before that leaves only its last in doubt."""
    mail = post()
    over, begun = mail.enqueue(), mail.enqueue()
    _, items = armed(mail)
    first, second = sorted(items, key=lambda item: item.uid != over)
    assert first.attempt is not None
    assert second.attempt is not None
    answer = Reply(250, "2.0.0", "taken")
    recipients = tuple(RecipientResult(a, Outcome.SENT, answer) for a in first.recipients)
    delivery = Delivery(Outcome.SENT, Stage.DOT, answer, recipients, 0.1)
    result = store.Result(first, delivery, judge(delivery, 1, already_sent=False), reply=False)
    witness = mail.runtime.kept(Connections).witness
    witness.note(first.attempt)
    witness.note(second.attempt, store.told(result))
    lease_runs_out(mail)

    mail.dispatch()

    assert mail.state(over) == "sent"
    assert mail.events(over) == ["outbound.queued", "outbound.sent"]
    assert mail.show(over)["recipients"][0]["state"] == "sent"
    assert mail.show(over)["attempts"][0]["code"] == 250
    assert mail.state(begun) == "uncertain"
    assert not mail.server.accepted


def test_a_notebook_emptied_by_a_crash_of_postgres_proves_nothing(post: Make) -> None:
    """The unlogged table is empty after such a crash: every armed one may have begun."""
    mail = post()
    uid = mail.enqueue()
    armed(mail)
    mail.sql("TRUNCATE mailwright.data_started")
    lease_runs_out(mail)

    mail.dispatch()

    assert mail.state(uid) == "uncertain"
    assert not mail.server.accepted


def test_nothing_is_stored_under_a_token_that_is_not_the_lanes_any_more(post: Make) -> None:
    mail = post()
    mail.enqueue()
    lane, items = claimed(mail)
    mail.sql("UPDATE mailwright.outbox_lanes SET lease_token = lease_token + 1")

    for item in items:
        item.attempt = uuid7()
    with pytest.raises(LeaseLost):
        store.advance(mail.runtime.db, lane, way(mail), (), items)
    with pytest.raises(LeaseLost):
        store.give_back(mail.runtime.db, lane, items)


def test_a_lease_taken_over_while_the_answer_is_awaited_leaves_doubt_not_a_second_copy(post: Make) -> None:
    mail = post({"dot": [Hang()]}, smtp_timeout=4)
    uid = mail.enqueue()
    worker = threading.Thread(target=mail.dispatch)
    worker.start()
    mail.server.wait_accepted(1)

    mail.sql("UPDATE mailwright.outbox_lanes SET lease_token = lease_token + 1, lease_until = now()")
    mail.sql("UPDATE mailwright.outbox_lanes SET next_due_at = now(), lease_owner = 'another'")
    mail.dispatch()
    worker.join()

    assert mail.state(uid) == "uncertain"
    assert len(mail.server.accepted) == 1


def test_the_dot_is_withheld_when_the_lease_was_lost_before_it(post: Make) -> None:
    mail = post(connections_per_account=1)
    uid = mail.enqueue()
    note = mail.runtime.kept(Connections).witness.note

    def lose(attempt: UUID, last: tuple[UUID, str] | None = None) -> None:
        note(attempt, last)
        mail.sql("UPDATE mailwright.outbox_lanes SET lease_token = lease_token + 1")
        wait_until(lambda: bool(lost()), 10, "the heartbeat finds the lease lost")

    def lost() -> list[threading.Thread]:
        beats = [t for t in threading.enumerate() if t.name == "outbound lease"]
        return [] if beats else [threading.current_thread()]

    mail.runtime.kept(Connections).witness.note = lose  # type: ignore[method-assign]
    mail.dispatch()

    assert not mail.server.accepted
    assert mail.state(uid) == "armed"


def test_two_workers_never_send_one_message_twice(post: Make) -> None:
    mail = post(connections_per_account=2)
    for _ in range(100):
        mail.enqueue()
    workers = [threading.Thread(target=mail.dispatch) for _ in range(3)]

    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert len(mail.server.accepted) == 100
    assert mail.sql("SELECT count(*) FROM mailwright.outbox WHERE state = 'sent'") == 100
