"""Adding and editing: what is derived, what is refused, what is written."""

from typing import Any

import pytest

from config.errors import Conflict, NotFound, PermissionDenied, UserError
from schema.tables.providers import Provider
from tasks.access import Actor
from tasks.mailboxes import NewMailbox, NotReady, Protocol, editing, engine, get, route
from tasks.mailboxes.connection import TestFailed
from tasks.runtime import Runtime
from tests.integration.mailboxes.conftest import ADMIN, PASSWORD, Add, Rows


def test_a_mailbox_is_recognised_from_its_address_and_scheduled(
    runtime: Runtime, add: Add, rows: Rows
) -> None:
    mailbox = add("anna@A.Example")

    assert mailbox.login == "anna@A.Example"
    assert mailbox.address_key == "anna@a.example"
    assert rows("SELECT enabled, host, account, lane FROM mailwright.schedule") == [
        {
            "enabled": True,
            "host": "imap.a.example",
            "account": "anna@A.Example@imap.a.example",
            "lane": "sync",
        }
    ]
    assert rows("SELECT enabled, host, next_due_at FROM mailwright.outbox_lanes") == [
        {"enabled": True, "host": "smtp.a.example", "next_due_at": None}
    ]


def test_the_route_opens_the_password_for_the_host_it_was_given_for(runtime: Runtime, add: Add) -> None:
    mailbox = add()

    with runtime.db.begin() as session:
        imap = route(session, runtime.keyring, mailbox.id, Protocol.IMAP)
        smtp = route(session, runtime.keyring, mailbox.id, Protocol.SMTP)

    assert (imap.endpoint.host, imap.endpoint.port, imap.password) == ("imap.a.example", 993, PASSWORD)
    assert (smtp.endpoint.host, smtp.endpoint.port, smtp.password) == ("smtp.a.example", 465, PASSWORD)
    assert PASSWORD not in repr(imap)


def test_what_is_off_gets_no_lane(runtime: Runtime, add: Add, rows: Rows) -> None:
    mailbox = add(send=False)

    assert rows("SELECT 1 FROM mailwright.outbox_lanes") == []
    with runtime.db.begin() as session, pytest.raises(NotReady, match="does not send"):
        route(session, runtime.keyring, mailbox.id, Protocol.SMTP)


@pytest.mark.parametrize(
    ("wish", "error", "words"),
    [
        ({"address": "anna@b.example"}, NotFound, "mailwright domain add b.example --provider NAME"),
        ({"address": "anna"}, UserError, "it has no @"),
        ({"address": "anna@a.example", "provider": "Z"}, NotFound, "no provider"),
        ({"address": "anna@a.example", "owner": "nobody"}, NotFound, 'no user "nobody"'),
        ({"address": "anna@a.example", "password": ""}, UserError, "empty"),
        (
            {"address": "anna@a.example", "receive": False, "send": False},
            UserError,
            "neither receive nor send",
        ),
        ({"address": "anna@a.example", "send_as": ("x",)}, UserError, "it has no @"),
        ({"address": "anna@a.example", "history_days": -1}, UserError, "days of history"),
    ],
)
def test_a_wish_that_cannot_be_leaves_nothing_behind(
    runtime: Runtime, provider: Provider, rows: Rows, wish: dict[str, Any], error: type[UserError], words: str
) -> None:
    with pytest.raises(error, match=words):
        engine.add(ADMIN, runtime, NewMailbox(**{"password": PASSWORD, **wish}), test=False)

    assert rows("SELECT 1 FROM mailwright.mailboxes") == []
    assert rows("SELECT 1 FROM mailwright.audit") == []


def test_an_address_is_taken_once(add: Add, rows: Rows) -> None:
    add()

    with pytest.raises(Conflict, match="exists already"):
        add("anna@A.EXAMPLE")
    assert len(rows("SELECT 1 FROM mailwright.mailboxes")) == 1


def test_a_mailbox_by_oauth_is_stored_without_a_password_and_waits_for_consent(
    runtime: Runtime, provider: Provider, rows: Rows
) -> None:
    rows("UPDATE mailwright.providers SET imap_authentication = 'oauth2'")

    with pytest.raises(UserError, match="needs its password"):  # SMTP still takes one
        engine.add(ADMIN, runtime, NewMailbox("anna@a.example"))
    added = engine.add(ADMIN, runtime, NewMailbox("anna@a.example", receive=True, send=False))

    assert added.consent_needed
    assert rows("SELECT 1 FROM mailwright.schedule WHERE enabled") == []
    with runtime.db.begin() as session, pytest.raises(NotReady, match="mailwright mailbox authorize anna"):
        route(session, runtime.keyring, added.mailbox.id, Protocol.IMAP)


def test_a_disabled_provider_takes_no_mailbox(runtime: Runtime, provider: Provider, rows: Rows) -> None:
    rows("UPDATE mailwright.providers SET disabled = true")

    with pytest.raises(UserError, match="disabled"):
        engine.add(ADMIN, runtime, NewMailbox("anna@a.example", PASSWORD), test=False)


def test_who_lacks_the_permission_is_refused_everywhere(runtime: Runtime, add: Add, rows: Rows) -> None:
    add()
    bob = Actor("bob")
    before = rows("SELECT * FROM mailwright.mailboxes")

    with pytest.raises(PermissionDenied, match="CanManageMailboxes"):
        engine.add(bob, runtime, NewMailbox("b@a.example", PASSWORD), test=False)
    with pytest.raises(PermissionDenied):
        editing.edit(bob, runtime, "anna@a.example", {"display_name": "x"})
    with pytest.raises(PermissionDenied):
        engine.probe(bob, runtime, "anna@a.example")
    for change in (engine.pause, engine.resume):
        with runtime.db.begin() as session, pytest.raises(PermissionDenied):
            change(bob, session, "anna@a.example")
    with runtime.db.begin() as session, pytest.raises(PermissionDenied):
        engine.confirm(bob, session, runtime.keyring, "anna@a.example")

    assert rows("SELECT * FROM mailwright.mailboxes") == before


def test_no_secret_reaches_the_audit_trail_or_the_events(runtime: Runtime, add: Add, rows: Rows) -> None:
    add()
    editing.edit(ADMIN, runtime, "anna@a.example", {"password": "another secret"}, test=False)

    told = repr(rows("SELECT * FROM mailwright.audit")) + repr(
        rows("SELECT * FROM mailwright.events_pending")
    )
    stored = repr(rows("SELECT * FROM mailwright.mailbox_secrets")) + repr(
        rows("SELECT * FROM mailwright.mailboxes")
    )
    assert PASSWORD not in told + stored
    assert "another secret" not in told + stored
    assert "•••" in told


def test_a_failed_test_stores_nothing_unless_asked_to(
    runtime: Runtime, provider: Provider, rows: Rows
) -> None:
    rows(
        "UPDATE mailwright.providers SET imap_host = '127.0.0.1', imap_port = 1, "
        "smtp_host = '127.0.0.1', smtp_port = 1"
    )
    wish = NewMailbox("anna@a.example", PASSWORD)

    with pytest.raises(TestFailed, match=r"IMAP at 127\.0\.0\.1:1 failed at connect") as caught:
        engine.add(ADMIN, runtime, wish)
    assert [report.failure.step for report in caught.value.reports if report.failure] == [
        "connect",
        "connect",
    ]
    assert rows("SELECT 1 FROM mailwright.mailboxes") == []

    added = engine.add(ADMIN, runtime, wish, store_anyway=True)
    assert not any(report.ok for report in added.reports)
    assert len(rows("SELECT 1 FROM mailwright.mailboxes")) == 1


def test_an_edit_is_audited_field_by_field(runtime: Runtime, add: Add, rows: Rows) -> None:
    add()

    editing.edit(
        ADMIN,
        runtime,
        "anna@a.example",
        {"display_name": "Anna", "send": False, "owner": "bob", "poll_seconds": 5.0, "folders": ("INBOX",)},
    )

    changes = rows("SELECT changes FROM mailwright.audit WHERE action = 'mailbox.edited'")[0]["changes"]
    assert changes == {
        "display_name": [None, "Anna"],
        "send": [True, False],
        "owner": [None, "bob"],
        "poll_seconds": [None, 5.0],
        "folders": [None, ["INBOX"]],
    }
    assert rows("SELECT enabled FROM mailwright.outbox_lanes") == [{"enabled": False}]
    assert rows("SELECT interval_seconds FROM mailwright.schedule") == [{"interval_seconds": 5.0}]


def test_an_edit_without_a_difference_is_no_change(runtime: Runtime, add: Add, rows: Rows) -> None:
    add()

    editing.edit(ADMIN, runtime, "anna@a.example", {"send": True})

    assert rows("SELECT 1 FROM mailwright.audit WHERE action = 'mailbox.edited'") == []


def test_another_provider_s_hosts_want_the_password_again(runtime: Runtime, add: Add, rows: Rows) -> None:
    mailbox = add()
    rows(
        "INSERT INTO mailwright.providers (name, receive, imap_host, imap_port) "
        "VALUES ('B', true, 'imap.b.example', 993)"
    )

    with pytest.raises(UserError, match="--password-stdin"):
        editing.edit(ADMIN, runtime, "anna@a.example", {"provider": "B"}, test=False)
    editing.edit(ADMIN, runtime, "anna@a.example", {"provider": "B", "password": "new"}, test=False)

    with runtime.db.begin() as session:
        there = route(session, runtime.keyring, mailbox.id, Protocol.IMAP)
    assert (there.endpoint.host, there.password) == ("imap.b.example", "new")
    assert rows("SELECT host FROM mailwright.schedule") == [{"host": "imap.b.example"}]


def test_an_unknown_mailbox_is_said_to_be_unknown(runtime: Runtime, provider: Provider) -> None:
    with runtime.db.begin() as session, pytest.raises(NotFound, match="mailwright mailbox list"):
        get(session, "nobody@a.example")
