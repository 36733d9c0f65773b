"""A mailbox that is removed: whoever is at it is waited for, and nothing of it is left in any table."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from config.queues import Lane
from lab.ports import wait_until
from lab.servers.imap_faults import PASSWORD
from lab.servers.smtp_faults import FaultySmtp, Hang
from lab.world import Ports, add_mailbox, add_provider, sync_now
from tasks import outbound, schedule
from tasks.access import SYSTEM
from tasks.events import relay
from tasks.housekeeping import tidy
from tasks.mailboxes import removal
from tasks.mailboxes.removal import remove
from tasks.runtime import Runtime
from tasks.sync import sync_mailbox
from tasks.sync.held import HeldSessions
from tasks.watch import Watcher
from tests.mail.sync.odd_imap import OddImap
from tests.mail.watch.idling_imap import IdlingImap

ANNA, BEN = "anna@test.example", "ben@test.example"
FOLDERS = {
    name: [
        b"Message-ID: <%s-%d@test.example>\r\nIn-Reply-To: <%s-1@test.example>\r\nSubject: Hello\r\n"
        b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nHi\r\n"
        b"--b\r\nContent-Type: text/plain; name=a.txt\r\nContent-Disposition: attachment\r\n\r\nA\r\n"
        b"--b--\r\n" % (name, number, name)
        for number in range(1, 8)
    ]
    for name in (b"INBOX", b"Sent", b"Archive")
}

CATALOGUE = """
    -- Foreign keys among our tables, and what a deletion of the row pointed at does.
    SELECT child.relname AS child, parent.relname AS parent, c.confdeltype AS on_delete
    FROM pg_constraint AS c JOIN pg_namespace AS n ON n.oid = c.connamespace
    JOIN pg_class AS child ON child.oid = c.conrelid JOIN pg_class AS parent ON parent.oid = c.confrelid
    WHERE c.contype = 'f' AND n.nspname = 'mailwright'
"""
WITH_MAILBOX = """
    SELECT c.relname FROM pg_attribute AS a
    JOIN pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'mailwright' AND a.attname = 'mailbox_id' AND NOT a.attisdropped
"""
TABLES = """
    SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'mailwright' AND c.relkind IN ('r', 'p') ORDER BY 1
"""
KEPT = {"events", "events_pending", "audit"}
"""Lines of the log, emptied, and the trail of who did what."""


def rows(runtime: Runtime, statement: str, **given: object) -> list[Any]:
    with runtime.db.begin() as session:
        result = session.execute(text(statement), given)
        return list(result.all()) if result.returns_rows else []  # type: ignore[attr-defined]


def counts(runtime: Runtime) -> dict[str, int]:
    """Rows of every table."""
    names = [row.relname for row in rows(runtime, TABLES)]
    return {name: rows(runtime, f"SELECT count(*) AS n FROM mailwright.{name}")[0].n for name in names}


@pytest.fixture
def servers() -> Iterator[tuple[OddImap, FaultySmtp]]:
    """An IMAP server with mail, and an SMTP server that takes it."""
    with OddImap(FOLDERS) as imap, FaultySmtp(None) as smtp:
        yield imap, smtp


@pytest.fixture
def provider(runtime: Runtime, servers: tuple[OddImap, FaultySmtp]) -> int:
    """On both of them."""
    imap, smtp = servers
    return add_provider(runtime, Ports(imap=imap.port, smtp=smtp.port), smtp_timeout=5)


def live(runtime: Runtime, provider: int, address: str) -> int:
    """A mailbox with a life: synced, some mail sent, some waiting, some wishes."""
    mailbox = add_mailbox(runtime, provider, address, PASSWORD)
    sync_now(runtime, mailbox, passes=2)
    send(runtime, address, 5)
    send(runtime, address, 3, not_before="2099-01-01T00:00:00Z", expires_at="2099-01-02T00:00:00Z")
    outbound.dispatch(SYSTEM, runtime, 10)
    return mailbox


def send(runtime: Runtime, address: str, count: int, **more: str) -> None:
    with runtime.db.begin() as session:
        for number in range(count):
            wish = {"to": "bob@remote.example", "subject": "Hello", "text": "Hi", **more}
            outbound.enqueue(SYSTEM, session, address, wish, f"{time.monotonic_ns()}-{number}")


def test_nothing_of_it_is_left_in_any_table_and_its_neighbour_has_everything(
    runtime: Runtime, provider: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "BATCH", 4)
    live(runtime, provider, BEN)
    token = relay.take_lease(runtime)
    assert token is not None
    relay.give_positions(runtime, token)
    before = counts(runtime)
    anna = live(runtime, provider, ANNA)
    grown = {name for name, count in counts(runtime).items() if count > before[name]}
    assert grown >= {
        *("mailboxes", "mailbox_secrets", "schedule", "outbox_lanes", "folders", "folder_epochs", "messages"),
        *("places", "raw_messages", "attachments", "message_references", "outbox", "outbox_content"),
        *("outbox_recipients", "attempts", "idempotency_keys", "commands"),
    } & set(before)
    assert relay.give_positions(runtime, token) > 0
    sync_now(runtime, anna)
    send(runtime, ANNA, 1)

    remove(SYSTEM, runtime, ANNA)

    after = counts(runtime)
    assert {name for name in after if name not in KEPT and after[name] != before[name]} == set()
    for row in rows(runtime, WITH_MAILBOX):
        left = rows(runtime, f"SELECT * FROM mailwright.{row.relname} WHERE mailbox_id = :id", id=anna)
        assert left == [] or row.relname in KEPT, row.relname
    told = [
        row
        for table in ("events", "events_pending")
        for row in rows(runtime, f"SELECT type, data FROM mailwright.{table} WHERE mailbox_id = :id", id=anna)
    ]
    assert {row.type for row in told if row.data != {"erased": True}} == {
        *("mailbox.connected", "mailbox.removed", "outbound.cancelled"),
    }


def test_the_catalogue_lets_no_table_be_forgotten(runtime: Runtime) -> None:
    """Whatever points at a mailbox, directly or through others, goes with it; a table that says whose a row
    is points at one."""
    keys = rows(runtime, CATALOGUE)
    reached: set[str] = set()
    found = {"mailboxes"}
    while found - reached:
        table = (found - reached).pop()
        reached.add(table)
        for key in keys:
            if key.parent == table:
                assert key.on_delete == "c", f"{key.child} holds up the removal of {table}"
                found.add(key.child)
    by_hand = {"outbox_wakes"}  # erased by name
    for row in rows(runtime, WITH_MAILBOX):
        assert row.relname in reached | by_hand | KEPT, row.relname


def test_a_sync_under_way_is_waited_for_and_its_worker_stores_nothing_more(
    runtime: Runtime, provider: int, servers: tuple[OddImap, FaultySmtp]
) -> None:
    """The worker hangs on a server that is silent; its lease is renewed meanwhile."""
    imap, _ = servers
    hanging, release = threading.Event(), threading.Event()

    def before(name: str, _rest: bytes) -> None:
        if name == "FETCH":
            hanging.set()
            release.wait(30)

    imap.before = before
    add_mailbox(runtime, provider, ANNA, PASSWORD)
    (claim,) = schedule.claim(runtime, Lane.SYNC)
    syncing = threading.Thread(target=sync_mailbox, args=(SYSTEM, runtime, claim))
    syncing.start()
    assert hanging.wait(20)
    removing = threading.Thread(target=remove, args=(SYSTEM, runtime, ANNA))
    removing.start()
    begun = "SELECT FROM mailwright.mailboxes WHERE state = 'removing'"
    wait_until(lambda: bool(rows(runtime, begun)), 20, "the removal to begin")
    assert schedule.claim(runtime, Lane.SYNC) == []

    removing.join(30)
    release.set()
    syncing.join(30)

    assert not removing.is_alive()
    assert not syncing.is_alive()
    for table in ("mailboxes", "schedule", "folders", "messages", "places", "raw_messages"):
        assert rows(runtime, f"SELECT FROM mailwright.{table}") == [], table


def test_a_message_on_the_wire_is_told_as_uncertain(runtime: Runtime) -> None:
    """The server is silent after the dot; its worker is waited for no longer than three leases."""
    with FaultySmtp({"dot": Hang()}) as smtp:
        ready = add_provider(runtime, Ports(smtp=smtp.port), smtp_timeout=30)
        add_mailbox(runtime, ready, ANNA, "secret")
        send(runtime, ANNA, 1)
        sending = threading.Thread(target=outbound.dispatch, args=(SYSTEM, runtime, 10))
        sending.start()
        started = "SELECT FROM mailwright.data_started WHERE witness IS NULL"
        wait_until(lambda: bool(rows(runtime, started)), 20, "DATA")
        send(runtime, ANNA, 1)

        remove(SYSTEM, runtime, ANNA)

        smtp.finish()
        sending.join(30)
    told = rows(runtime, "SELECT type, data FROM mailwright.events_pending WHERE type LIKE 'outbound.%'")
    ends = {row.type: row.data for row in told if row.data != {"erased": True}}
    assert set(ends) == {"outbound.uncertain", "outbound.cancelled"}
    assert "while the message was sent" in ends["outbound.uncertain"]["reason"]
    assert rows(runtime, started) == []


def test_watchers_and_resting_sessions_let_go_of_it(runtime: Runtime) -> None:
    with IdlingImap(FOLDERS) as imap:
        mailbox = add_mailbox(runtime, add_provider(runtime, Ports(imap=imap.port)), ANNA, PASSWORD)
        sync_now(runtime, mailbox)
        assert runtime.kept(HeldSessions).mailboxes() == [mailbox]
        watching = Runtime.open(runtime.settings.model_copy(update={"watch_lease_seconds": 2}))
        watcher = threading.Thread(target=Watcher(watching, lambda: None).run)
        watcher.start()
        try:
            wait_until(lambda: bool(imap.idling), 20, "an IDLE")
            assert imap.open_sessions == 2

            remove(SYSTEM, runtime, ANNA)

            wait_until(lambda: imap.open_sessions == 1, 20, "the watcher to let go")
            runtime.kept(HeldSessions).review(runtime)
            wait_until(lambda: imap.open_sessions == 0, 20, "the worker to let go")
        finally:
            watching.stopping.set()
            watcher.join(20)
            watching.close()


def test_housekeeping_finishes_a_removal_once_its_worker_is_gone_and_waits_for_nobody(
    runtime: Runtime, provider: int
) -> None:
    mailbox = live(runtime, provider, ANNA)
    rows(runtime, "UPDATE mailwright.schedule SET next_poll_at = now()")
    schedule.claim(runtime, Lane.SYNC)
    rows(runtime, "UPDATE mailwright.mailboxes SET state = 'removing' WHERE id = :id", id=mailbox)
    rows(runtime, "UPDATE mailwright.schedule SET enabled = false, lease_until = now() + interval '1 hour'")

    begun = time.monotonic()
    tidy(SYSTEM, runtime)
    assert time.monotonic() - begun < runtime.settings.lease_seconds
    assert len(rows(runtime, "SELECT FROM mailwright.mailboxes")) == 1

    rows(runtime, "UPDATE mailwright.schedule SET lease_until = now() - interval '1 s'")
    tidy(SYSTEM, runtime)
    assert rows(runtime, "SELECT FROM mailwright.mailboxes") == []
