"""A dead host is left alone as one, by everybody, and comes back by turns."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import text

from config.queues import Lane
from lab.world import Ports, add_mailbox, add_provider
from tasks import providers, schedule
from tasks.access import SYSTEM
from tasks.outbound import store
from tasks.providers import ProviderDraft
from tasks.runtime import Runtime
from tasks.schedule.breaker import FAULTS
from tasks.watch import store as watch
from tests.integration.schedule.test_claims import crowd

DEAD = "dead.example"


def rows(runtime: Runtime, statement: str, **given: object) -> list[Any]:
    with runtime.db.begin() as session:
        result = session.execute(text(statement), given)
        return list(result.all()) if result.returns_rows else []  # type: ignore[attr-defined]


def fails(runtime: Runtime, times: int = FAULTS, host: str = DEAD, *, probe: bool = False) -> bool:
    """Whether the host is left alone after so many faults."""
    until = None
    for _ in range(times):
        with runtime.db.begin() as session:
            until = schedule.fault(session, "imap", host, "nobody is there", probe=probe)
    return until is not None


def pause_ends(runtime: Runtime) -> None:
    rows(runtime, "UPDATE mailwright.breakers SET retry_at = now() WHERE opened_at IS NOT NULL")


def events(runtime: Runtime) -> list[tuple[str, dict[str, Any]]]:
    found = rows(runtime, "SELECT type, data FROM mailwright.events_pending ORDER BY id")
    return [(row.type, row.data) for row in found if row.type.startswith("provider.")]


def test_five_faults_in_a_row_close_the_door_and_one_event_says_so(runtime: Runtime) -> None:
    crowd(runtime, "Dead", 20)
    living = crowd(runtime, "Living", 2)

    assert not fails(runtime, FAULTS - 1)
    assert fails(runtime, 3)

    assert {each.mailbox_id for each in schedule.claim(runtime, Lane.SYNC, 50)} == set(living)
    ((kind, data),) = events(runtime)
    assert kind == "provider.unreachable"
    assert (data["name"], data["host"], data["protocol"]) == ("Dead", DEAD, "imap")
    assert data["reason"] == "nobody is there"


def test_an_answer_between_faults_begins_the_count_anew(runtime: Runtime) -> None:
    crowd(runtime, "Dead", 1)
    fails(runtime, FAULTS - 1)
    (claim,) = schedule.claim(runtime, Lane.SYNC)
    assert claim.doubted
    assert not claim.probe

    schedule.answered(runtime.db, "imap", DEAD)

    assert not fails(runtime, FAULTS - 1)
    assert events(runtime) == []


def test_after_the_pause_one_probe_is_let_through_and_no_other_while_it_lasts(runtime: Runtime) -> None:
    crowd(runtime, "Dead", 20)
    fails(runtime)
    pause_ends(runtime)

    (probe,) = schedule.claim(runtime, Lane.SYNC, 10)
    assert probe.probe
    assert schedule.claim(runtime, Lane.SYNC, 10) == []

    fails(runtime, 1, probe=True)
    assert schedule.claim(runtime, Lane.SYNC, 10) == []
    assert rows(runtime, "SELECT trips FROM mailwright.breakers")[0].trips == 2


def test_a_probe_whose_worker_died_is_followed_by_another(runtime: Runtime) -> None:
    crowd(runtime, "Dead", 5)
    fails(runtime)
    pause_ends(runtime)
    schedule.claim(runtime, Lane.SYNC)
    rows(runtime, "UPDATE mailwright.breakers SET probe_until = now() - interval '1 s'")

    (other,) = schedule.claim(runtime, Lane.SYNC, 10)

    assert other.probe


def test_two_providers_on_one_host_share_its_probe(runtime: Runtime) -> None:
    crowd(runtime, "Dead", 5)
    twin = add_provider(runtime, Ports(imap=143), "Twin")
    rows(runtime, "UPDATE mailwright.providers SET imap_host = :host WHERE id = :id", host=DEAD, id=twin)
    add_mailbox(runtime, twin, "t@twin.example", "x")
    fails(runtime)
    assert [data["name"] for _, data in events(runtime)] == ["Dead", "Twin"]
    pause_ends(runtime)

    assert len(schedule.claim(runtime, Lane.SYNC, 10)) == 1


def test_a_cap_that_is_used_up_by_the_dead_does_not_keep_the_probe_out(runtime: Runtime) -> None:
    """Leases of workers that still wait for the dead host."""
    crowd(runtime, "Dead", 5, connections_per_host=2)
    assert len(schedule.claim(runtime, Lane.SYNC, 10)) == 2
    fails(runtime)
    pause_ends(runtime)

    assert len(schedule.claim(runtime, Lane.SYNC, 10)) == 1


def test_a_host_that_is_back_is_not_stormed(runtime: Runtime) -> None:
    """1,000 that wait come back within 50 s, no second sees more than a few more than its share."""
    mailboxes = crowd(runtime, "Dead", 1)
    provider = rows(runtime, "SELECT id FROM mailwright.providers")[0].id
    rows(
        runtime,
        """
        WITH made AS (
            INSERT INTO mailwright.mailboxes (address, address_key, provider_id, login)
            SELECT n || '@dead.example', n || '@dead.example', :provider, 'x'
            FROM generate_series(2, 1000) AS n
            RETURNING id
        )
        INSERT INTO mailwright.schedule (mailbox_id, provider_id, host, account, next_poll_at)
        SELECT id, :provider, 'dead.example', id::text, now() - interval '1 hour' FROM made
        """,
        provider=provider,
    )
    fails(runtime)
    pause_ends(runtime)
    schedule.claim(runtime, Lane.SYNC)
    with runtime.db.begin() as session:
        schedule.ask(session, mailboxes)

    schedule.answered(runtime.db, "imap", DEAD)

    waits = rows(
        runtime,
        "SELECT floor(extract(epoch FROM next_poll_at - now()))::int AS second, count(*) AS n "
        "FROM mailwright.schedule WHERE lease_until IS NULL AND NOT asked GROUP BY 1",
    )
    by_second = Counter({row.second: row.n for row in waits})
    assert by_second.total() == 998  # all but the probe, and the one that somebody waits for
    assert max(by_second) <= 50
    assert max(by_second.values()) <= 50
    asked = rows(runtime, "SELECT next_poll_at <= now() AS due FROM mailwright.schedule WHERE asked")
    assert [row.due for row in asked] == [True]
    assert [kind for kind, _ in events(runtime)] == ["provider.unreachable", "provider.recovered"]


def test_recovery_is_told_once(runtime: Runtime) -> None:
    crowd(runtime, "Dead", 1)
    fails(runtime)

    schedule.answered(runtime.db, "imap", DEAD)
    schedule.answered(runtime.db, "imap", DEAD)

    assert [kind for kind, _ in events(runtime)] == ["provider.unreachable", "provider.recovered"]


def test_an_edit_of_the_provider_begins_afresh(runtime: Runtime) -> None:
    mailboxes = crowd(runtime, "Dead", 5)
    fails(runtime)
    assert schedule.claim(runtime, Lane.SYNC, 10) == []

    with runtime.db.begin() as session:
        providers.edit(SYSTEM, session, "Dead", ProviderDraft(imap_port=1143))

    assert len(schedule.claim(runtime, Lane.SYNC, 10)) == len(mailboxes)


def test_who_asks_has_the_host_probed_at_once_and_is_told(runtime: Runtime) -> None:
    mailboxes = crowd(runtime, "Dead", 5)
    fails(runtime)
    with runtime.db.begin() as session:
        since, asked = schedule.ask(session, mailboxes)
        assert set(schedule.settled(session, asked, since).values()) == {"nobody is there"}
        schedule.try_now(session, asked)
        assert schedule.settled(session, asked, since) == {}

    (probe,) = schedule.claim(runtime, Lane.SYNC, 10)

    assert probe.probe


def test_imap_and_smtp_of_one_host_are_two(runtime: Runtime) -> None:
    crowd(runtime, "Dead", 3)
    for _ in range(FAULTS):
        with runtime.db.begin() as session:
            schedule.fault(session, "smtp", DEAD, "nobody is there")

    assert len(schedule.claim(runtime, Lane.SYNC, 10)) == 3


def test_mail_waits_where_the_smtp_host_is_left_alone(runtime: Runtime) -> None:
    provider = add_provider(runtime, Ports(smtp=25), "Dead")
    mailbox = add_mailbox(runtime, provider, "a@dead.example", "x")
    other = add_mailbox(runtime, provider, "b@dead.example", "x")
    rows(runtime, "UPDATE mailwright.outbox_lanes SET next_due_at = now()")
    for _ in range(FAULTS):
        with runtime.db.begin() as session:
            schedule.fault(session, "smtp", "127.0.0.1", "nobody is there")
    assert store.claim_lane(runtime.db, runtime.owner, 60, 8) is None

    pause_ends(runtime)
    probe = store.claim_lane(runtime.db, runtime.owner, 60, 8)

    assert probe is not None
    assert probe.mailbox_id in (mailbox, other)
    assert (probe.probe, probe.connections) == (True, 1)
    assert store.claim_lane(runtime.db, runtime.owner, 60, 8) is None


def test_watchers_leave_a_dead_host_to_the_sync(runtime: Runtime) -> None:
    crowd(runtime, "Dead", 3)
    living = crowd(runtime, "Living", 2)
    rows(runtime, "UPDATE mailwright.mailboxes SET connected_at = now()")
    watch.enrol(runtime, 10)
    fails(runtime)

    claimed = watch.claim(runtime, 10)

    assert {each.mailbox_id for each in claimed} == set(living)
    put_off = rows(
        runtime,
        "SELECT extract(epoch FROM retry_at - now()) AS wait FROM mailwright.watches WHERE watcher IS NULL",
    )
    assert len(put_off) == 3
    assert all(15 <= row.wait <= 45 for row in put_off)
    pause_ends(runtime)
    assert watch.claim(runtime, 10) == []


def test_what_is_full_in_this_process_is_passed_over(runtime: Runtime) -> None:
    crowd(runtime, "Dead", 3)
    living = crowd(runtime, "Living", 2)

    found = schedule.claim(runtime, Lane.SYNC, 10, full=[DEAD])

    assert {each.mailbox_id for each in found} == set(living)


@pytest.mark.parametrize("waiting", [0, 1])
def test_nothing_is_written_of_a_host_that_is_well(runtime: Runtime, waiting: int) -> None:
    crowd(runtime, "Living", waiting)

    schedule.answered(runtime.db, "imap", "living.example")

    assert rows(runtime, "SELECT * FROM mailwright.breakers") == []
