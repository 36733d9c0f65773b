"""A provider rests in one direction or both, until a time, and comes back by itself."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from config.errors import Conflict, NotFound, PermissionDenied, UserError
from lab.world import Ports, add_mailbox, add_provider
from schema.tables.providers import Paused
from tasks import providers
from tasks.access import SYSTEM, Actor
from tasks.housekeeping import tidy
from tasks.mailboxes import NotReady, Protocol, route
from tasks.runtime import Runtime


@pytest.fixture
def mailbox(runtime: Runtime) -> int:
    """One that receives and sends."""
    return add_mailbox(runtime, add_provider(runtime, Ports(imap=143, smtp=25)), "anna@test.example", "x")


def ask(runtime: Runtime, statement: str) -> list[Any]:
    with runtime.db.begin() as session:
        result = session.execute(text(statement))
        return list(result.all()) if result.returns_rows else []  # type: ignore[attr-defined]


def lanes(runtime: Runtime) -> tuple[bool, bool]:
    """Whether it is synced, and whether it sends."""
    (row,) = ask(
        runtime,
        "SELECT s.enabled AS receives, l.enabled AS sends FROM mailwright.schedule AS s "
        "JOIN mailwright.outbox_lanes AS l USING (mailbox_id)",
    )
    return row.receives, row.sends


def pause(runtime: Runtime, what: Paused, **more: Any) -> None:
    with runtime.db.begin() as session:
        providers.pause(SYSTEM, session, "Test", what=what, **more)


@pytest.mark.parametrize(
    ("what", "left"),
    [(Paused.BOTH, (False, False)), (Paused.RECEIVING, (False, True)), (Paused.SENDING, (True, False))],
)
def test_what_is_paused_rests_and_the_other_goes_on(
    runtime: Runtime, mailbox: int, what: Paused, left: tuple[bool, bool]
) -> None:
    pause(runtime, what, reason="they are moving")
    assert lanes(runtime) == left
    for protocol, goes_on in zip((Protocol.IMAP, Protocol.SMTP), left, strict=True):
        with runtime.db.begin() as session:
            if goes_on:
                assert route(session, runtime.keyring, mailbox, protocol).mailbox_id == mailbox
            else:
                with pytest.raises(NotReady, match=r"\(they are moving\)"):
                    route(session, runtime.keyring, mailbox, protocol)

    with runtime.db.begin() as session:
        providers.resume(SYSTEM, session, "Test")
    assert lanes(runtime) == (True, True)


def test_another_pause_takes_the_place_of_the_first(runtime: Runtime, mailbox: int) -> None:
    pause(runtime, Paused.RECEIVING)
    pause(runtime, Paused.SENDING)

    assert lanes(runtime) == (True, False)


def test_it_ends_by_itself_and_the_mailboxes_come_back_spread(runtime: Runtime, mailbox: int) -> None:
    pause(runtime, Paused.BOTH, until=datetime.now(UTC) + timedelta(hours=1), reason="a holiday")
    tidy(SYSTEM, runtime)
    assert lanes(runtime) == (False, False)
    ask(runtime, "UPDATE mailwright.providers SET paused_until = now() - interval '1 s'")

    tidy(SYSTEM, runtime)

    assert lanes(runtime) == (True, True)
    (row,) = ask(runtime, "SELECT paused, paused_until, paused_reason FROM mailwright.providers")
    assert tuple(row) == (None, None, None)
    (wait,) = ask(runtime, "SELECT extract(epoch FROM next_poll_at - now()) AS s FROM mailwright.schedule")
    assert -5 <= wait.s <= 60


def test_it_is_told_and_audited(runtime: Runtime, mailbox: int) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    pause(runtime, Paused.SENDING, until=until, reason="a holiday")
    with runtime.db.begin() as session:
        providers.resume(SYSTEM, session, "Test")

    told = ask(
        runtime, "SELECT data FROM mailwright.events_pending WHERE type = 'provider.changed' ORDER BY id"
    )
    assert [row.data["action"] for row in told] == ["paused", "resumed"]
    assert (told[0].data["paused"], told[0].data["reason"]) == ("sending", "a holiday")
    assert told[0].data["until"] == until.isoformat()
    trail = ask(runtime, "SELECT action FROM mailwright.audit WHERE action LIKE 'provider.%' ORDER BY id")
    assert [row.action for row in trail] == ["provider.paused", "provider.resumed"]


def test_what_cannot_be_is_refused(runtime: Runtime, mailbox: int) -> None:
    with runtime.db.begin() as session:
        with pytest.raises(UserError, match="over already"):
            providers.pause(SYSTEM, session, "Test", until=datetime(2020, 1, 1, tzinfo=UTC))
        with pytest.raises(UserError, match="at most 500 characters"):
            providers.pause(SYSTEM, session, "Test", reason="x" * 501)
        with pytest.raises(Conflict, match="not paused"):
            providers.resume(SYSTEM, session, "Test")
        with pytest.raises(NotFound):
            providers.pause(SYSTEM, session, "Nobody's")
    with runtime.db.begin() as session, pytest.raises(PermissionDenied):
        providers.pause(Actor("mallory"), session, "Test")
