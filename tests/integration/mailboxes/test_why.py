"""Why a mailbox is or is not being synced: each state has its sentence."""

import pytest

from config.errors import NotFound
from config.queues import Lane
from tasks import schedule
from tasks.mailboxes import engine
from tasks.mailboxes.why import Why, why
from tasks.runtime import Runtime
from tasks.schedule.breaker import FAULTS
from tests.integration.mailboxes.conftest import ADMIN, Add, Rows

ADDRESS = "anna@a.example"


def told(runtime: Runtime) -> Why:
    with runtime.db.begin() as session:
        return why(ADMIN, session, ADDRESS, runtime.settings.lease_seconds)


def test_due_syncing_waiting_and_failing(runtime: Runtime, add: Add, rows: Rows) -> None:
    add(ADDRESS)
    assert told(runtime).state == "due"
    assert "a worker takes it within a tick" in told(runtime).reason

    (claim,) = schedule.claim(runtime, Lane.SYNC)
    assert told(runtime).state == "syncing"
    assert runtime.owner in told(runtime).reason

    with runtime.db.begin() as session:
        schedule.fail(session, claim, "The server was silent.")
    failing = told(runtime)
    assert failing.state == "failing"
    assert failing.reason.endswith("The last try failed: The server was silent.")
    assert failing.next_at is not None

    rows("UPDATE mailwright.schedule SET failures = 0, last_error = NULL")
    assert told(runtime).state == "waiting"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE mailwright.providers SET connections_per_account = 1", "1 connections of its account"),
        ("UPDATE mailwright.providers SET connections_per_host = 1", "1 connections to imap.a.example"),
    ],
)
def test_due_behind_a_cap(runtime: Runtime, add: Add, rows: Rows, change: str, words: str) -> None:
    add(ADDRESS)
    add("bob@a.example", login=ADDRESS)
    rows(change)
    rows(
        "UPDATE mailwright.schedule SET lease_owner = 'x', lease_until = now() + interval '1 minute' "
        "WHERE mailbox_id = (SELECT max(id) FROM mailwright.mailboxes)"
    )

    assert words in told(runtime).reason


def test_due_and_nobody_works(runtime: Runtime, add: Add, rows: Rows) -> None:
    add(ADDRESS)
    rows("UPDATE mailwright.schedule SET next_poll_at = now() - interval '1 minute'")

    assert "workers never took any mailbox; see `mailwright doctor`" in told(runtime).reason


def test_stopped_says_how_to_go_on(runtime: Runtime, add: Add) -> None:
    add(ADDRESS)
    with runtime.db.begin() as session:
        engine.pause(ADMIN, session, ADDRESS, reason="holiday")

    assert told(runtime).state == "stopped"
    assert "is paused (holiday). Resume it: mailwright mailbox resume" in told(runtime).reason


STOPPED = [
    ("providers SET disabled = true", "mailwright provider enable"),
    ("providers SET paused = 'both', paused_until = now() + interval '1 h', paused_reason = 'they move'",
     "receiving is paused until"),
    ("providers SET paused = 'receiving'", 'Resume it: mailwright provider resume "A"'),
    ("providers SET receive = false", "does not receive"),
    ("mailboxes SET receive = false", "does not receive"),
    ("mailboxes SET awaiting_confirmation = true", "waits for a confirmation"),
    ("mailboxes SET imap_retry_at = now() + interval '1 h'", "IMAP refused the credentials"),
    ("mailboxes SET state = 'paused', paused_until = now() + interval '1 h'", "is paused until"),
    ("mailboxes SET state = 'removing'", "is being removed"),
    ("providers SET imap_authentication = 'oauth2'", "waits for consent"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), STOPPED)
def test_each_reason_to_stand_still_is_named(
    runtime: Runtime, add: Add, rows: Rows, change: str, words: str
) -> None:
    add(ADDRESS)
    rows(f"UPDATE mailwright.{change}")

    found = told(runtime)

    assert found.state == "stopped"
    assert words in found.reason
    assert (found.next_at is not None) == ("interval" in change)


def test_its_host_is_left_alone_and_until_when(runtime: Runtime, add: Add, rows: Rows) -> None:
    add(ADDRESS)
    for _ in range(FAULTS):
        with runtime.db.begin() as session:
            schedule.fault(session, "imap", "imap.a.example", "The connection was refused.")

    found = told(runtime)
    assert found.state == "unreachable"
    assert "waits for imap.a.example, which failed for everyone" in found.reason
    assert "(The connection was refused); it is tried again at" in found.reason
    assert found.next_at is not None

    rows("UPDATE mailwright.breakers SET retry_at = now() - interval '1 s'")
    assert "is being tried again by one of its mailboxes" in told(runtime).reason


def test_due_in_the_slow_lane(runtime: Runtime, add: Add, rows: Rows) -> None:
    add(ADDRESS)
    with runtime.db.begin() as session:
        schedule.slow(session, "imap", "imap.a.example", 300)

    assert "waits in the slow lane: imap.a.example made us wait" in told(runtime).reason


def test_a_worker_that_does_not_renew_may_be_dead_and_one_whose_lease_is_over_is(
    runtime: Runtime, add: Add, rows: Rows
) -> None:
    add(ADDRESS)
    schedule.claim(runtime, Lane.SYNC)
    assert "may be dead" not in told(runtime).reason

    rows("UPDATE mailwright.schedule SET lease_until = now() + interval '0.9 s'")
    found = told(runtime)
    assert found.state == "syncing"
    assert "may be dead; another worker takes it after" in found.reason

    rows("UPDATE mailwright.schedule SET lease_until = now() - interval '1 s'")
    found = told(runtime)
    assert found.state == "due"
    assert f"when {runtime.owner}, which died or hung at it, lost its lease" in found.reason


def test_folders_and_messages_that_are_left_out_are_told_behind(
    runtime: Runtime, add: Add, rows: Rows
) -> None:
    mailbox = add(ADDRESS)
    rows("UPDATE mailwright.schedule SET next_poll_at = now() + interval '1 min'")
    for name in ("Archive", "Broken", "Cellar", "Den"):
        rows(
            "INSERT INTO mailwright.folders (mailbox_id, wire_name, name, selectable, followed, retry_at) "
            "VALUES (:id, cast(:name AS text)::bytea, :name, true, true, now() + interval '1 h')",
            id=mailbox.id,
            name=name,
        )
    rows(
        "WITH e AS (INSERT INTO mailwright.folder_epochs (mailbox_id, folder_id, state, uidvalidity) "
        "SELECT mailbox_id, id, 'current', 1 FROM mailwright.folders WHERE name = 'Den' RETURNING id) "
        "INSERT INTO mailwright.places (epoch_id, imap_uid, mailbox_id, stub) SELECT id, 7, :id, 'x' FROM e",
        id=mailbox.id,
    )

    found = told(runtime)

    assert found.state == "waiting"
    assert "Without Archive, Broken, Cellar and 1 more, which failed, until" in found.reason
    assert "1 of its messages cannot be had" in found.reason


def test_history_is_told(runtime: Runtime, add: Add, rows: Rows) -> None:
    add(ADDRESS)
    rows("UPDATE mailwright.schedule SET lane = 'history'")

    assert told(runtime).reason.endswith("It still fetches its history.")


def test_nobody_of_that_address(runtime: Runtime) -> None:
    with pytest.raises(NotFound):
        told(runtime)
