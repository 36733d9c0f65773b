"""Whose turn it is: fairness between providers, caps of host and account, leases."""

import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from lab.ports import wait_until
from lab.world import Ports, add_mailbox, add_provider
from tasks import outbound
from tasks.access import SYSTEM
from tasks.mailboxes import Protocol, open_route
from tasks.outbound import queries, store
from tasks.outbound.place import HEAD_EVERY, Place
from tasks.runtime import Runtime


def mailbox(runtime: Runtime, provider: int, address: str) -> int:
    """A mailbox with one message due."""
    found = add_mailbox(runtime, provider, address, "secret")
    with runtime.db.begin() as session:
        outbound.enqueue(SYSTEM, session, address, {"to": "bob@far.example", "text": "x"})
    return found


def claim(runtime: Runtime, owner: str = "me") -> store.Lane | None:
    return store.claim_lane(runtime.db, owner, 60, 8)


def test_a_crowd_of_one_provider_does_not_make_another_wait(runtime: Runtime) -> None:
    crowd = add_provider(runtime, Ports(smtp=9), "Crowd")
    few = add_provider(runtime, Ports(smtp=10), "Few")
    for number in range(10):
        mailbox(runtime, crowd, f"{number}@crowd.example")
    mine = {mailbox(runtime, few, f"{number}@few.example") for number in range(2)}

    taken = [lane.mailbox_id for _ in range(4) if (lane := claim(runtime))]

    assert mine < set(taken)


def test_a_crowd_that_was_served_goes_behind_those_who_wait(runtime: Runtime) -> None:
    """However old its mail is: else a few crowded mailboxes would keep all others from the slots."""
    provider = add_provider(runtime, Ports(smtp=9))
    crowd = mailbox(runtime, provider, "crowd@test.example")
    with runtime.db.begin() as session:
        session.execute(text("UPDATE mailwright.outbox SET due_at = now() - interval '1 hour'"))
    lane = claim(runtime)
    assert lane is not None
    few = mailbox(runtime, provider, "few@test.example")
    store.release(runtime.db, lane)

    taken = [lane.mailbox_id for _ in range(2) if (lane := claim(runtime))]

    assert taken == [few, crowd]


def test_connections_at_a_host_are_capped_over_all_lanes(runtime: Runtime) -> None:
    provider = add_provider(runtime, Ports(smtp=9), connections_per_host=5, connections_per_account=3)
    for number in range(4):
        mailbox(runtime, provider, f"{number}@test.example")

    granted = [lane.connections if (lane := claim(runtime)) else 0 for _ in range(3)]

    assert granted == [3, 2, 0]


def test_resting_connections_count_and_keep_the_lane_for_their_owner(runtime: Runtime) -> None:
    provider = add_provider(runtime, Ports(smtp=9), connections_per_host=3, connections_per_account=3)
    first = mailbox(runtime, provider, "a@test.example")
    lane = claim(runtime)
    assert lane is not None
    assert lane.mailbox_id == first
    store.release(runtime.db, lane, resting=2, rest=60)
    mailbox(runtime, provider, "b@test.example")

    assert (other := claim(runtime, "other")) is not None
    assert other.mailbox_id != first
    assert other.connections == 1
    assert claim(runtime, "other") is None


def test_a_lease_holds_until_it_runs_out_and_then_has_a_new_token(runtime: Runtime) -> None:
    provider = add_provider(runtime, Ports(smtp=9))
    mailbox(runtime, provider, "a@test.example")
    lane = claim(runtime)
    assert lane is not None
    assert claim(runtime, "other") is None

    with runtime.db.begin() as session:
        session.execute(text("UPDATE mailwright.outbox_lanes SET lease_until = now() - interval '1 ms'"))
    again = claim(runtime, "other")

    assert again is not None
    assert again.token == lane.token + 1


def test_a_lane_without_due_mail_is_not_taken(runtime: Runtime) -> None:
    provider = add_provider(runtime, Ports(smtp=9))
    add_mailbox(runtime, provider, "a@test.example", "secret")
    assert claim(runtime) is None


def test_a_released_lane_is_due_with_its_next_message(runtime: Runtime) -> None:
    provider = add_provider(runtime, Ports(smtp=9))
    found = mailbox(runtime, provider, "a@test.example")
    lane = claim(runtime)
    assert lane is not None
    with runtime.db.begin() as session:
        session.execute(text("UPDATE mailwright.outbox SET due_at = now() + interval '1 hour'"))
    store.release(runtime.db, lane)

    with runtime.db.begin() as session:
        due = session.execute(
            text("""SELECT next_due_at - now() BETWEEN '59 minutes' AND '61 minutes'
                    FROM mailwright.outbox_lanes WHERE mailbox_id = :id"""),
            {"id": found},
        ).scalar_one()
    assert due


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_claims_go_on_from_their_place_and_look_at_the_head_every_second(runtime: Runtime) -> None:
    """What comes before the place, or is given back, waits for that look; nothing is missed."""
    address = "a@test.example"
    box = add_mailbox(runtime, add_provider(runtime, Ports(smtp=9)), address, "secret")

    def queue(subject: str, priority: int) -> None:
        with runtime.db.begin() as session:
            wish = {"to": "bob@far.example", "text": "x", "subject": subject, "priority": priority}
            outbound.enqueue(SYSTEM, session, address, wish)

    for number in range(4):
        queue(f"high {number}", 5)
    for number in range(5):
        queue(f"low {number}", 0)
    lane = claim(runtime)
    assert lane is not None
    clock = Clock()
    place = Place(clock)

    def take(batch: int = 3) -> tuple[list[store.Item], list[str]]:
        items, _, _ = store.claim(runtime.db, lane, route, batch, place)
        return items, [str(item.request["subject"]) for item in items if item.request]

    route = open_route(runtime, box, Protocol.SMTP)
    first, told = take()
    assert told == ["high 0", "high 1", "high 2"]
    place.out_of_hand([first[0].id])
    queue("urgent", 9)
    assert take()[1] == ["high 3"]  # less than a batch was left behind the place
    assert take()[1] == ["urgent", "high 0", "low 0"]
    queue("urgent again", 9)
    assert take()[1] == ["low 1", "low 2", "low 3"]
    clock.now += HEAD_EVERY
    assert take()[1] == ["urgent again", "low 4"]
    assert take()[1] == []


def test_what_comes_while_a_lane_is_given_back_is_not_forgotten(runtime: Runtime) -> None:
    """A message is accepted, and its wake folded into the lane by another's claim, between our look at what
    waits and our hold of the lane's row."""
    address = "a@test.example"
    found = add_mailbox(runtime, add_provider(runtime, Ports(smtp=9)), address, "secret")
    mailbox(runtime, add_provider(runtime, Ports(smtp=10), "Other"), "b@other.example")
    with runtime.db.begin() as session:
        session.execute(text("UPDATE mailwright.outbox_lanes SET next_due_at = now()"))
    lanes = [claim(runtime), claim(runtime)]
    (lane,) = [lane for lane in lanes if lane and lane.mailbox_id == found]

    with runtime.db.begin() as session:
        session.execute(queries.HOLD_LANE, lane.key)
        release = threading.Thread(target=store.release, args=(runtime.db, lane))
        release.start()
        wait_until(lambda: _waits_for_lock(runtime), 10, "the release to wait for the lane's row")
        with runtime.db.begin() as other:
            outbound.enqueue(SYSTEM, other, address, {"to": "bob@far.example", "text": "x"})
        session.execute(queries.FOLD_WAKES)
    release.join()

    assert (again := claim(runtime)) is not None
    assert again.mailbox_id == found


def _waits_for_lock(runtime: Runtime) -> bool:
    with runtime.db.begin() as session:
        return bool(
            session.execute(
                text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            ).scalar_one()
        )


def test_a_claim_starts_where_the_first_message_waits_and_misses_none(runtime: Runtime) -> None:
    """Whatever brings a message back, older than what the lane had left, is seen by the next claim."""
    address = "a@test.example"
    box = add_mailbox(runtime, add_provider(runtime, Ports(smtp=9)), address, "secret")
    route = open_route(runtime, box, Protocol.SMTP)

    def take() -> list[UUID]:
        lane = claim(runtime)
        if lane is None:
            return []
        items, _, _ = store.claim(runtime.db, lane, route, 20, Place())
        store.release(runtime.db, lane)
        return [item.uid for item in items]

    with runtime.db.begin() as session:
        wish = {"to": "bob@far.example", "text": "x"}
        first, second, third = (outbound.enqueue(SYSTEM, session, address, wish).uid for _ in range(3))
    assert take() == [first, second, third]

    with runtime.db.begin() as session:
        for uid in (first, second, third):
            outbound.hold(SYSTEM, session, uid)
    assert take() == []
    with runtime.db.begin() as session:
        assert session.execute(
            text("SELECT none_due_before > now() - interval '1 minute' FROM mailwright.outbox_lanes")
        ).scalar_one()
        outbound.release(SYSTEM, session, first)
        outbound.retry(SYSTEM, session, second)
        outbound.release(SYSTEM, session, third)
        outbound.reschedule(SYSTEM, session, third, datetime.now(UTC) - timedelta(hours=1))
    assert take() == [third, first, second]
