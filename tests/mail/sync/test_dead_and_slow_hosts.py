"""A dead host is left alone and found again; a tarpit does not hold up who is quick."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import text

from config.queues import Lane
from config.settings import Settings
from lab.ports import free_port, wait_until
from lab.servers.imap_faults import PASSWORD, Faults, FaultyImap, Stage
from lab.world import Ports, add_mailbox, add_provider
from tasks import schedule
from tasks.access import SYSTEM
from tasks.runtime import Runtime
from tasks.schedule.breaker import FAULTS
from tasks.schedule.slots import PATIENCE
from tasks.sync import sync_mailbox
from tasks.sync.engine import sync_due
from tests.mail.sync.odd_imap import OddImap

MAIL = [b"Subject: hello\r\nMessage-ID: <1@test.example>\r\n\r\nHello\r\n"]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A server may be silent for a second."""
    return settings.model_copy(update={"imap_timeout_seconds": 1.0, "lease_seconds": 10.0})


def rows(runtime: Runtime, statement: str, **given: object) -> list[dict[str, object]]:
    with runtime.db.begin() as session:
        result = session.execute(text(statement), given)
        return [dict(row) for row in result.mappings()] if result.returns_rows else []


def events(runtime: Runtime) -> list[object]:
    found = rows(
        runtime, "SELECT type FROM mailwright.events_pending WHERE type LIKE 'provider.%' ORDER BY id"
    )
    return [row["type"] for row in found]


def once(runtime: Runtime) -> int:
    """Everything that may be claimed is synced once. Returns how many."""
    rows(runtime, "UPDATE mailwright.schedule SET next_poll_at = now() WHERE lease_until IS NULL")
    claims = schedule.claim(runtime, Lane.SYNC, 100)
    for claim in claims:
        sync_mailbox(SYSTEM, runtime, claim)
    return len(claims)


def test_a_dead_host_costs_five_tries_then_one_a_pause_and_is_found_again(runtime: Runtime) -> None:
    port = free_port()
    provider = add_provider(runtime, Ports(imap=port))
    for number in range(40):
        add_mailbox(runtime, provider, f"m{number}@test.example", PASSWORD)
    assert once(runtime) == 40  # claimed before anyone knew; most of them come to know it in time
    failed = "SELECT count(*) AS n FROM mailwright.schedule WHERE failures > 0"
    assert rows(runtime, failed) == [{"n": FAULTS - 1}]
    assert events(runtime) == ["provider.unreachable"]
    assert rows(runtime, "SELECT state FROM mailwright.mailboxes WHERE state <> 'active'") == []

    assert once(runtime) == 0
    rows(runtime, "UPDATE mailwright.breakers SET retry_at = now()")
    assert once(runtime) == 1
    assert once(runtime) == 0
    assert rows(runtime, failed) == [{"n": FAULTS - 1}]

    with FaultyImap(MAIL, port=port) as server:
        rows(runtime, "UPDATE mailwright.breakers SET retry_at = now()")
        assert once(runtime) == 1
        assert events(runtime) == ["provider.unreachable", "provider.recovered"]
        while once(runtime):
            if rows(runtime, "SELECT FROM mailwright.schedule WHERE last_synced_at IS NULL") == []:
                break
        assert server.sessions >= 40
    assert rows(runtime, "SELECT faults, trips, opened_at FROM mailwright.breakers") == [
        {"faults": 0, "trips": 0, "opened_at": None}
    ]


@pytest.mark.parametrize(
    "faults",
    [
        Faults(reply={Stage.LOGIN: b"NO [THROTTLED] Account exceeded command or bandwidth limits."}),
        Faults(reply={Stage.LOGIN: b"NO [ALERT] Too many simultaneous connections. (Failure)"}),
        Faults(reply={Stage.LOGIN: b"NO [UNAVAILABLE] Temporary authentication failure."}),
        Faults(reply={Stage.LIST: b"NO [LIMIT] Server busy"}),
        Faults(bye=frozenset({Stage.GREETING})),
        Faults(close=frozenset({Stage.GREETING})),
        Faults(hang=frozenset({Stage.SELECT})),
    ],
)
def test_each_way_of_being_unwell_opens_the_breaker_once_many_meet_it(
    runtime: Runtime, faults: Faults
) -> None:
    with FaultyImap(MAIL, faults) as server:
        provider = add_provider(runtime, Ports(imap=server.port))
        for number in range(FAULTS):
            add_mailbox(runtime, provider, f"m{number}@test.example", PASSWORD)

        once(runtime)

        assert events(runtime) == ["provider.unreachable"]
        assert rows(runtime, "SELECT FROM mailwright.mailboxes WHERE imap_refusals > 0") == []


def test_one_throttled_account_does_not_close_the_door_for_the_others(runtime: Runtime) -> None:
    with FaultyImap(MAIL, Faults(reply={Stage.LOGIN: b"NO [THROTTLED] slow down"})) as server:
        provider = add_provider(runtime, Ports(imap=server.port))
        add_mailbox(runtime, provider, "anna@test.example", PASSWORD)
        for _ in range(3 * FAULTS):
            once(runtime)

        assert rows(runtime, "SELECT faults FROM mailwright.breakers") == [{"faults": 1}]
        add_mailbox(runtime, provider, "ben@test.example", PASSWORD)
        assert once(runtime) == 2


def test_refused_passwords_are_no_fault_of_the_host(runtime: Runtime) -> None:
    with FaultyImap(MAIL) as server:
        provider = add_provider(runtime, Ports(imap=server.port))
        for number in range(2 * FAULTS):
            add_mailbox(runtime, provider, f"m{number}@test.example", "wrong")

        assert once(runtime) == 2 * FAULTS

        assert rows(runtime, "SELECT * FROM mailwright.breakers") == []


@pytest.fixture
def patient(settings: Settings) -> Iterator[Runtime]:
    """A worker with eight slots that bears long silence."""
    runtime = Runtime.open(settings.model_copy(update={"imap_timeout_seconds": 60.0, "held_sessions": 0}))
    yield runtime
    runtime.close()


def test_a_tarpit_beside_a_quick_host(patient: Runtime) -> None:
    """Many mailboxes on a host that answers no login for a while: it gets two of the eight slots, and the
    quick host's mailboxes are all synced meanwhile."""
    answers, waiting = threading.Event(), threading.Event()

    def wait(name: str, _rest: bytes) -> None:
        if name in ("LOGIN", "AUTHENTICATE"):
            waiting.set()
            answers.wait(60)

    def worker() -> threading.Thread:
        thread = threading.Thread(target=sync_due, args=(SYSTEM, patient, Lane.SYNC, lambda: None))
        thread.start()
        return thread

    with ExitStack() as stack:
        tarpit, quick = stack.enter_context(OddImap(MAIL)), stack.enter_context(OddImap(MAIL))
        stack.callback(answers.set)
        tarpit.before = wait
        slow = add_provider(patient, Ports(imap=tarpit.port), "Tarpit")
        fast = add_provider(patient, Ports(imap=quick.port, host="localhost"), "Quick")
        for number in range(12):
            add_mailbox(patient, slow, f"m{number}@tarpit.example", PASSWORD)
        threads = [worker() for _ in range(4)]
        assert waiting.wait(20)
        stuck_since = time.monotonic()
        for number in range(20):
            add_mailbox(patient, fast, f"m{number}@quick.example", PASSWORD)
        threads += [worker() for _ in range(4)]

        left = "SELECT FROM mailwright.schedule WHERE host = :host AND last_synced_at IS NULL"
        wait_until(lambda: not rows(patient, left, host="localhost"), 30, "the quick ones to be synced")
        assert len(rows(patient, left, host="127.0.0.1")) == 12
        assert tarpit.most_open == 2

        time.sleep(max(0.0, stuck_since + PATIENCE + 0.5 - time.monotonic()))
        answers.set()
        for thread in threads:
            thread.join()
        assert tarpit.most_open == 2
        found = rows(patient, "SELECT host FROM mailwright.breakers WHERE slow_until > now()")
        assert found == [{"host": "127.0.0.1"}]
