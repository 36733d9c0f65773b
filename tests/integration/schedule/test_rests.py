"""How long a mailbox rests between two polls: longer while push is healthy, and no longer once it is not."""

import pytest
from sqlalchemy import text

from config.queues import Lane
from lab.world import Ports, add_mailbox, add_provider
from tasks import schedule
from tasks.runtime import Runtime
from tasks.schedule import Claim
from tasks.schedule.values import rest
from tasks.watch import store
from tasks.watch.values import Ended

WATCHED = text("""
    WITH watcher AS (
        INSERT INTO mailwright.watchers (owner, until, most)
        VALUES (:owner, now() + make_interval(secs => :lives), 10)
    )
    INSERT INTO mailwright.watches (mailbox_id, account, watcher, connected_at)
    VALUES (:id, 'anna@127.0.0.1', :owner, CASE WHEN :connected THEN now() END)
""")
SECONDS = text("SELECT extract(epoch FROM next_poll_at - now()) FROM mailwright.schedule")


@pytest.fixture
def claim(runtime: Runtime) -> Claim:
    add_mailbox(runtime, add_provider(runtime, Ports(imap=143)), "anna@test.example", "x")
    (claim,) = schedule.claim(runtime, Lane.SYNC)
    return claim


def watch(runtime: Runtime, claim: Claim, *, lives: float = 60.0, connected: bool = True) -> None:
    given = {"owner": runtime.owner, "lives": lives, "id": claim.mailbox_id, "connected": connected}
    with runtime.db.begin() as session:
        session.execute(WATCHED, given)


def finish(runtime: Runtime, claim: Claim, *, together: bool, wanted: float | None = None) -> float:
    """Give it back after an interval of 100 s; the seconds until it is due again."""
    with runtime.db.begin() as session:
        if together:
            schedule.finish_unchanged(session, {claim: rest(100.0, wanted)})
        else:
            schedule.finish(session, claim, lane=Lane.SYNC, rest=rest(100.0, wanted))
    return due_in(runtime)


def due_in(runtime: Runtime) -> float:
    with runtime.db.begin() as session:
        return float(session.execute(SECONDS).scalar_one())


@pytest.mark.parametrize("together", [False, True])
def test_a_watched_mailbox_is_polled_three_times_more_rarely(
    runtime: Runtime, claim: Claim, together: bool
) -> None:
    watch(runtime, claim)

    assert 265 <= finish(runtime, claim, together=together) <= 330


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("watched", [{"lives": -1.0}, {"connected": False}, None])
def test_one_whose_watcher_is_dead_or_not_connected_is_not(
    runtime: Runtime, claim: Claim, together: bool, watched: dict[str, float] | None
) -> None:
    if watched is not None:
        watch(runtime, claim, **watched)

    assert 85 <= finish(runtime, claim, together=together) <= 110


def test_where_the_mailbox_says_how_often_that_holds(runtime: Runtime, claim: Claim) -> None:
    watch(runtime, claim)

    assert 17 <= finish(runtime, claim, together=False, wanted=20) <= 22


@pytest.mark.parametrize("how", ["the session ended", "the watcher died"])
def test_one_that_loses_its_watcher_is_polled_as_often_as_others(
    runtime: Runtime, claim: Claim, how: str
) -> None:
    watch(runtime, claim)
    finish(runtime, claim, together=False)

    if how == "the session ended":
        store.give_back(runtime, [Ended(claim.mailbox_id, failures=1, pause=15.0, error="it hung up")])
    else:
        with runtime.db.begin() as session:
            session.execute(text("UPDATE mailwright.watchers SET until = now()"))
        assert store.bury(runtime) == 1

    assert 0 <= due_in(runtime) <= 100
