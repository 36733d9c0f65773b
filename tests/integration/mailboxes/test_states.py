"""Pausing, refused credentials, confirmations, removal."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from config.errors import Conflict, LeaseLost, NotFound, UserError
from config.queues import Lane
from schema.tables.providers import Provider
from tasks.mailboxes import (
    NotReady,
    Protocol,
    editing,
    engine,
    login_refused,
    login_worked,
    refresh_provider_lanes,
    resume_due,
    route,
)
from tasks.mailboxes.removal import continue_removals, remove
from tasks.runtime import Runtime
from tasks.schedule import engine as schedule
from tests.integration.mailboxes.conftest import ADMIN, PASSWORD, Add, Rows

ADDRESS = "anna@a.example"
EVENTS = "SELECT type FROM mailwright.events_pending WHERE type LIKE 'mailbox.%' ORDER BY id"


def refuse(runtime: Runtime, mailbox_id: int, times: int, protocol: Protocol = Protocol.IMAP) -> None:
    for _ in range(times):
        with runtime.db.begin() as session:
            login_refused(session, mailbox_id, protocol, "[AUTHENTICATIONFAILED] no")


def lanes(rows: Rows) -> tuple[bool, bool]:
    row = rows(
        "SELECT s.enabled AS s, l.enabled AS l FROM mailwright.schedule s "
        "JOIN mailwright.outbox_lanes l USING (mailbox_id)"
    )[0]
    return row["s"], row["l"]


def test_a_paused_mailbox_is_left_alone_until_resumed(runtime: Runtime, add: Add, rows: Rows) -> None:
    mailbox = add()

    with runtime.db.begin() as session:
        engine.pause(ADMIN, session, ADDRESS, reason="moving house")
    assert lanes(rows) == (False, False)
    assert schedule.claim(runtime, Lane.SYNC) == []
    with runtime.db.begin() as session, pytest.raises(NotReady, match="mailbox resume"):
        route(session, runtime.keyring, mailbox.id, Protocol.IMAP)

    with runtime.db.begin() as session:
        engine.resume(ADMIN, session, ADDRESS)
    assert lanes(rows) == (True, True)
    assert [claim.mailbox_id for claim in schedule.claim(runtime, Lane.SYNC)] == [mailbox.id]
    assert [row["type"] for row in rows(EVENTS)] == ["mailbox.paused", "mailbox.resumed"]


def test_a_pause_ends_by_itself_at_its_time(runtime: Runtime, add: Add, rows: Rows) -> None:
    add()
    with runtime.db.begin() as session:
        engine.pause(ADMIN, session, ADDRESS, until=datetime.now(UTC) + timedelta(hours=1))
    with runtime.db.begin() as session:
        assert resume_due(session) == 0

    rows("UPDATE mailwright.mailboxes SET paused_until = now() - interval '1 second'")
    with runtime.db.begin() as session:
        assert resume_due(session) == 1

    assert lanes(rows) == (True, True)
    assert rows("SELECT state, paused_until FROM mailwright.mailboxes") == [
        {"state": "active", "paused_until": None}
    ]


def test_a_pause_in_the_past_is_refused(runtime: Runtime, add: Add) -> None:
    add()
    with runtime.db.begin() as session, pytest.raises(UserError, match="over already"):
        engine.pause(ADMIN, session, ADDRESS, until=datetime(2020, 1, 1, tzinfo=UTC))


def test_resuming_what_is_active_is_refused(runtime: Runtime, add: Add) -> None:
    add()
    with runtime.db.begin() as session, pytest.raises(Conflict, match="active already"):
        engine.resume(ADMIN, session, ADDRESS)


def test_three_refusals_make_one_event_and_no_retry_storm(runtime: Runtime, add: Add, rows: Rows) -> None:
    mailbox = add()

    refuse(runtime, mailbox.id, 1)
    assert rows("SELECT state FROM mailwright.mailboxes") == [{"state": "active"}]
    assert schedule.claim(runtime, Lane.SYNC) == []  # it rests after the first refusal already
    with runtime.db.begin() as session, pytest.raises(NotReady) as caught:
        route(session, runtime.keyring, mailbox.id, Protocol.IMAP)
    assert caught.value.until is not None

    refuse(runtime, mailbox.id, 5)
    assert rows("SELECT state FROM mailwright.mailboxes") == [{"state": "needs_attention"}]
    assert [row["type"] for row in rows(EVENTS)] == ["mailbox.needs_attention"]


def test_smtp_goes_on_while_imap_rests(runtime: Runtime, add: Add) -> None:
    mailbox = add()
    refuse(runtime, mailbox.id, 3, Protocol.IMAP)

    with runtime.db.begin() as session:
        assert route(session, runtime.keyring, mailbox.id, Protocol.SMTP).password == PASSWORD


def test_it_half_opens_by_itself_and_recovers(runtime: Runtime, add: Add, rows: Rows) -> None:
    mailbox = add()
    refuse(runtime, mailbox.id, 3)
    rows("UPDATE mailwright.mailboxes SET imap_retry_at = now() - interval '1 s'")
    rows("UPDATE mailwright.schedule SET next_poll_at = now()")

    assert [claim.mailbox_id for claim in schedule.claim(runtime, Lane.SYNC)] == [mailbox.id]
    with runtime.db.begin() as session:
        route(session, runtime.keyring, mailbox.id, Protocol.IMAP)
        login_worked(session, mailbox.id, Protocol.IMAP)

    assert rows("SELECT state, imap_refusals FROM mailwright.mailboxes") == [
        {"state": "active", "imap_refusals": 0}
    ]
    assert [row["type"] for row in rows(EVENTS)] == [
        "mailbox.needs_attention",
        "mailbox.connected",
        "mailbox.recovered",
    ]


def test_a_login_that_works_writes_nothing_after_the_first(runtime: Runtime, add: Add, rows: Rows) -> None:
    mailbox = add()
    with runtime.db.begin() as session:
        login_worked(session, mailbox.id, Protocol.IMAP)
    before = rows("SELECT xmin::text FROM mailwright.mailboxes")

    with runtime.db.begin() as session:
        login_worked(session, mailbox.id, Protocol.IMAP)

    assert rows("SELECT xmin::text FROM mailwright.mailboxes") == before
    assert [row["type"] for row in rows(EVENTS)] == ["mailbox.connected"]


@pytest.mark.parametrize("change", [{"password": "new"}, {"login": "anna2"}])
def test_new_credentials_start_afresh(runtime: Runtime, add: Add, rows: Rows, change: dict[str, str]) -> None:
    mailbox = add()
    refuse(runtime, mailbox.id, 4)

    editing.edit(ADMIN, runtime, ADDRESS, change, test=False)  # type: ignore[arg-type]

    assert rows("SELECT state, imap_refusals, imap_retry_at FROM mailwright.mailboxes") == [
        {"state": "active", "imap_refusals": 0, "imap_retry_at": None}
    ]
    assert [claim.mailbox_id for claim in schedule.claim(runtime, Lane.SYNC)] == [mailbox.id]


def test_resume_lets_a_mailbox_that_needs_attention_try_at_once(
    runtime: Runtime, add: Add, rows: Rows
) -> None:
    mailbox = add()
    refuse(runtime, mailbox.id, 3)

    with runtime.db.begin() as session:
        engine.resume(ADMIN, session, ADDRESS)

    assert rows("SELECT state, imap_refusals FROM mailwright.mailboxes") == [
        {"state": "needs_attention", "imap_refusals": 3}
    ]
    assert [claim.mailbox_id for claim in schedule.claim(runtime, Lane.SYNC)] == [mailbox.id]


def test_a_pause_over_refusals_ends_in_needs_attention(runtime: Runtime, add: Add, rows: Rows) -> None:
    mailbox = add()
    refuse(runtime, mailbox.id, 3)
    with runtime.db.begin() as session:
        engine.pause(ADMIN, session, ADDRESS)
        engine.resume(ADMIN, session, ADDRESS)

    assert rows("SELECT state FROM mailwright.mailboxes") == [{"state": "needs_attention"}]


@pytest.mark.parametrize("change", ["imap_host = 'imap.evil.example'", "imap_security = 'none'"])
def test_no_password_goes_to_a_new_place_unconfirmed(
    runtime: Runtime, provider: Provider, add: Add, rows: Rows, change: str
) -> None:
    """Even where nothing flagged the mailbox, as after a hand-made UPDATE."""
    mailbox = add()
    rows(f"UPDATE mailwright.providers SET {change}")

    with runtime.db.begin() as session, pytest.raises(NotReady, match="mailbox confirm"):
        route(session, runtime.keyring, mailbox.id, Protocol.IMAP)

    with runtime.db.begin() as session:
        engine.confirm(ADMIN, session, runtime.keyring, ADDRESS)
    with runtime.db.begin() as session:
        assert route(session, runtime.keyring, mailbox.id, Protocol.IMAP).password == PASSWORD
    audited = rows("SELECT changes FROM mailwright.audit WHERE action = 'mailbox.confirmed'")
    assert len(audited) == 1
    assert PASSWORD not in repr(audited)


def test_another_port_or_stronger_security_needs_no_confirmation(
    runtime: Runtime, provider: Provider, add: Add, rows: Rows
) -> None:
    rows("UPDATE mailwright.providers SET imap_security = 'none', imap_port = 143")
    mailbox = add()
    rows("UPDATE mailwright.providers SET imap_security = 'tls', imap_port = 1993")

    with runtime.db.begin() as session:
        assert route(session, runtime.keyring, mailbox.id, Protocol.IMAP).endpoint.port == 1993


def test_a_provider_s_mailboxes_are_confirmed_together(
    runtime: Runtime, provider: Provider, add: Add, rows: Rows
) -> None:
    for name in "abc":
        add(f"{name}@a.example")
    rows("UPDATE mailwright.providers SET smtp_host = 'smtp.new.example'")
    rows("UPDATE mailwright.mailboxes SET awaiting_confirmation = true")
    with runtime.db.begin() as session:
        refresh_provider_lanes(session, provider.id)
    assert {row["enabled"] for row in rows("SELECT enabled FROM mailwright.schedule")} == {False}

    with runtime.db.begin() as session:
        assert engine.confirm_provider(ADMIN, session, runtime.keyring, "A") == 3
    with runtime.db.begin() as session:
        assert engine.confirm_provider(ADMIN, session, runtime.keyring, "A") == 0

    assert {
        (row["enabled"], row["host"]) for row in rows("SELECT enabled, host FROM mailwright.outbox_lanes")
    } == {(True, "smtp.new.example")}


def test_a_provider_s_switches_reach_the_lanes(
    runtime: Runtime, provider: Provider, add: Add, rows: Rows
) -> None:
    add()
    for change, expected in [
        ("disabled = true", (False, False)),
        ("disabled = false", (True, True)),
        ("receive = false", (False, True)),
        ("receive = true, smtp_authentication = 'oauth2'", (True, False)),
    ]:
        rows(f"UPDATE mailwright.providers SET {change}")
        with runtime.db.begin() as session:
            refresh_provider_lanes(session, provider.id)
        assert lanes(rows) == expected


def test_a_removed_mailbox_leaves_nothing_but_its_trail(runtime: Runtime, add: Add, rows: Rows) -> None:
    mailbox = add()
    other = add("other@a.example")
    for each in (mailbox, other):
        fill(rows, each.id)

    erased = remove(ADMIN, runtime, ADDRESS)

    assert (erased.messages, erased.outbound, erased.cancelled) == (1200, 2, 1)
    for table in (
        "mailboxes",
        "mailbox_secrets",
        "schedule",
        "outbox_lanes",
        "folders",
        "folder_epochs",
        "messages",
        "places",
        "raw_messages",
        "outbox",
        "outbox_content",
    ):
        column = {"mailboxes": "id", "outbox_content": None}.get(table, "mailbox_id")
        if column:
            assert rows(f"SELECT 1 FROM mailwright.{table} WHERE {column} = :id", id=mailbox.id) == [], table
            assert rows(f"SELECT 1 FROM mailwright.{table} WHERE {column} = :id LIMIT 1", id=other.id), table
    assert len(rows("SELECT 1 FROM mailwright.outbox_content")) == 2
    assert [
        row["action"] for row in rows("SELECT action FROM mailwright.audit ORDER BY id DESC LIMIT 2")
    ] == [
        "mailbox.removed",
        "mailbox.removing",
    ]
    told = rows(
        "SELECT type, data FROM mailwright.events_pending WHERE mailbox_id = :id ORDER BY id", id=mailbox.id
    )
    assert [row["type"] for row in told] == ["message.received", "outbound.cancelled", "mailbox.removed"]
    assert told[0]["data"] == {"erased": True}
    kept = rows("SELECT position, data FROM mailwright.events WHERE mailbox_id = :id", id=mailbox.id)
    assert kept == [{"position": mailbox.id, "data": {"erased": True}}]
    with pytest.raises(NotFound):
        remove(ADMIN, runtime, ADDRESS)


def test_a_removal_broken_off_is_continued(runtime: Runtime, add: Add, rows: Rows) -> None:
    mailbox = add()
    fill(rows, mailbox.id)

    class Killed(Exception):
        pass

    def killed(what: str, count: int) -> None:
        if what == "messages":
            raise Killed

    with pytest.raises(Killed):
        remove(ADMIN, runtime, ADDRESS, killed)
    assert rows("SELECT state FROM mailwright.mailboxes") == [{"state": "removing"}]
    with runtime.db.begin() as session, pytest.raises(Conflict, match="being removed"):
        engine.pause(ADMIN, session, ADDRESS)

    assert continue_removals(ADMIN, runtime) == 1
    assert rows("SELECT 1 FROM mailwright.mailboxes") == []
    assert rows("SELECT 1 FROM mailwright.messages") == []


def test_a_worker_s_lease_is_waited_for_and_then_outdated(runtime: Runtime, add: Add, rows: Rows) -> None:
    add()
    (claim,) = schedule.claim(runtime, Lane.SYNC)
    begun = time.monotonic()

    remove(ADMIN, runtime, ADDRESS)

    assert time.monotonic() - begun >= runtime.settings.lease_seconds * 0.9  # nobody renewed it
    with runtime.db.begin() as session, pytest.raises(LeaseLost):
        schedule.fence(session, claim.lease, 2)


def fill(rows: Rows, mailbox_id: int) -> None:
    """1,200 messages with places and bytes, a stub, two outgoing messages, two events."""
    rows(
        """
        WITH folder AS (
            INSERT INTO mailwright.folders (mailbox_id, wire_name, name, selectable, followed)
            VALUES (:id, 'INBOX', 'INBOX', true, true) RETURNING id
        ), epoch AS (
            INSERT INTO mailwright.folder_epochs (mailbox_id, folder_id, state, uidvalidity)
            SELECT :id, id, 'current', 1 FROM folder RETURNING id
        ), message AS (
            INSERT INTO mailwright.messages (mailbox_id, digest, size, announced)
            SELECT :id, sha256(n::text::bytea), 1, true FROM generate_series(1, 1200) AS n RETURNING id
        ), raw AS (
            INSERT INTO mailwright.raw_messages (message_id, mailbox_id, raw) SELECT id, :id, 'x' FROM message
        ), stub AS (
            INSERT INTO mailwright.places (epoch_id, imap_uid, mailbox_id, stub)
            SELECT id, 999999, :id, 'too big' FROM epoch
        )
        INSERT INTO mailwright.places (epoch_id, imap_uid, mailbox_id, message_id)
        SELECT epoch.id, row_number() OVER (), :id, message.id FROM epoch, message
        """,
        id=mailbox_id,
    )
    rows(
        """
        WITH message AS (
            INSERT INTO mailwright.outbox (mailbox_id, state, expires_at, principal)
            VALUES (:id, 'queued', now(), 'x'), (:id, 'sent', now(), 'x') RETURNING id
        )
        INSERT INTO mailwright.outbox_content (outbound_id, content) SELECT id, 'x' FROM message
        """,
        id=mailbox_id,
    )
    rows(
        "INSERT INTO mailwright.events_pending (type, mailbox_id, subject, data) "
        """VALUES ('message.received', :id, 's', '{"subject": "private"}')""",
        id=mailbox_id,
    )
    rows(
        "INSERT INTO mailwright.events (position, uid, type, mailbox_id, subject, data, at) "
        """VALUES (:id, gen_random_uuid(), 'message.received', :id, 's', '{"subject": "private"}', now())""",
        id=mailbox_id,
    )
