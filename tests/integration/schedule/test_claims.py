"""Claims: one holder a mailbox, caps held exactly, no provider behind another's crowd."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from config.errors import LeaseLost
from config.queues import Lane
from lab.world import Ports, add_mailbox, add_mailboxes, add_provider
from tasks import schedule
from tasks.runtime import Runtime
from tasks.schedule.values import rest


def crowd(runtime: Runtime, name: str, count: int, **fields: object) -> list[int]:
    provider = add_provider(runtime, Ports(imap=143), name, **fields)
    with runtime.db.begin() as session:
        session.execute(
            text("UPDATE mailwright.providers SET imap_host = :host WHERE id = :id"),
            {"host": f"{name.lower()}.example", "id": provider},
        )
    return [add_mailbox(runtime, provider, f"m{n}@{name.lower()}.example", "x") for n in range(count)]


def test_two_claimers_never_get_the_same_mailbox(runtime: Runtime) -> None:
    mailboxes = crowd(runtime, "Crowd", 30)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: schedule.claim(runtime, Lane.SYNC, 3), range(12)))

    claimed = [claim.mailbox_id for claims in found for claim in claims]
    assert sorted(claimed) == sorted(mailboxes)


def test_the_cap_of_a_host_is_held(runtime: Runtime) -> None:
    crowd(runtime, "Small", 20, connections_per_host=4)

    claimed = [schedule.claim(runtime, Lane.SYNC, 3) for _ in range(5)]

    assert sum(len(claims) for claims in claimed) == 4


def test_a_mailbox_given_back_frees_its_place_under_the_cap(runtime: Runtime) -> None:
    crowd(runtime, "Small", 3, connections_per_host=1)
    (first,) = schedule.claim(runtime, Lane.SYNC)
    assert schedule.claim(runtime, Lane.SYNC) == []

    with runtime.db.begin() as session:
        schedule.finish(session, first, lane=Lane.SYNC, rest=rest(30))

    (second,) = schedule.claim(runtime, Lane.SYNC)
    assert second.mailbox_id != first.mailbox_id


def test_a_small_provider_is_not_behind_a_crowd(runtime: Runtime) -> None:
    crowd(runtime, "Crowd", 200, connections_per_host=1000)
    few = set(crowd(runtime, "Few", 5))

    claimed = {claim.mailbox_id for _ in range(5) for claim in schedule.claim(runtime, Lane.SYNC, 10)}

    assert few <= claimed


def test_a_lease_that_ran_out_is_taken_over_and_the_old_holder_is_fenced(runtime: Runtime) -> None:
    crowd(runtime, "One", 1)
    (old,) = schedule.claim(runtime, Lane.SYNC)
    with runtime.db.begin() as session:
        session.execute(text("UPDATE mailwright.schedule SET lease_until = now() - interval '1 s'"))

    (new,) = schedule.claim(runtime, Lane.SYNC)

    assert new.crashes == 1
    assert new.lease.token == old.lease.token + 1
    with runtime.db.begin() as session, pytest.raises(LeaseLost):
        schedule.fence(session, old.lease, 2)
    with runtime.db.begin() as session:
        schedule.fence(session, new.lease, 2)


def test_a_wish_during_a_sync_keeps_the_mailbox_due(runtime: Runtime) -> None:
    (mailbox,) = crowd(runtime, "One", 1)
    (claim,) = schedule.claim(runtime, Lane.SYNC)
    with runtime.db.begin() as session:
        schedule.ask(session, [mailbox])

    with runtime.db.begin() as session:
        schedule.finish(session, claim, lane=Lane.SYNC, rest=rest(600))

    (again,) = schedule.claim(runtime, Lane.SYNC)
    assert again.asked


def test_all_that_fell_due_while_nobody_worked_do_not_storm_their_host(runtime: Runtime) -> None:
    """1,000 mailboxes, due for an hour: the cap is kept while they are served, and after it they do not fall
    due at one moment again."""
    provider = add_provider(runtime, Ports(imap=143), "Crowd", connections_per_host=50)
    mailboxes = add_mailboxes(runtime, provider, [f"m{n}@crowd.example" for n in range(1000)], "x")
    with runtime.db.begin() as session:
        session.execute(text("UPDATE mailwright.schedule SET next_poll_at = now() - interval '1 hour'"))

    served: list[int] = []
    while claims := schedule.claim(runtime, Lane.SYNC, 128):
        assert len(claims) <= 50
        assert schedule.claim(runtime, Lane.SYNC, 128) == []
        with runtime.db.begin() as session:
            schedule.finish_unchanged(session, dict.fromkeys(claims, rest(60.0)))
        served += [claim.mailbox_id for claim in claims]

    assert sorted(served) == sorted(mailboxes)
    with runtime.db.begin() as session:
        seconds = session.execute(
            text("SELECT floor(extract(epoch FROM next_poll_at))::bigint AS s FROM mailwright.schedule")
        ).scalars()
        by_second = Counter(seconds)
    assert len(by_second) >= 10
    assert max(by_second.values()) <= 150


def test_a_failure_rests_the_mailbox(runtime: Runtime) -> None:
    crowd(runtime, "One", 1)
    (claim,) = schedule.claim(runtime, Lane.SYNC)

    with runtime.db.begin() as session:
        schedule.fail(session, claim, "the server is down")

    assert schedule.claim(runtime, Lane.SYNC) == []
