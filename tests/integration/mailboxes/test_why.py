"""Why a mailbox is or is not being synced: each state has its sentence."""

import pytest

from config.errors import NotFound
from config.queues import Lane
from tasks import schedule
from tasks.mailboxes import engine
from tasks.mailboxes.why import Why, why
from tasks.runtime import Runtime
from tests.integration.mailboxes.conftest import ADMIN, Add, Rows

ADDRESS = "anna@a.example"


def told(runtime: Runtime) -> Why:
    with runtime.db.begin() as session:
        return why(ADMIN, session, ADDRESS)


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
    assert "mailwright mailbox resume" in told(runtime).reason


def test_nobody_of_that_address(runtime: Runtime) -> None:
    with pytest.raises(NotFound):
        told(runtime)
