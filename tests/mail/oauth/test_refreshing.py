"""Access tokens are refreshed once, ahead of time, by whoever comes first, and never after a refusal."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from config.settings import Settings
from lab.servers.dovecot import Dovecot
from lab.servers.token_server import Manners, TokenServer
from lab.world import sync_now
from schema.tables.mailboxes import Mailbox
from schema.tables.providers import Provider
from tasks.mailboxes import NotReady, Protocol, Route, open_route
from tasks.mailboxes.refreshing import rest_after
from tasks.runtime import Runtime
from tasks.wire.sasl import AccessToken
from tests.mail.oauth.conftest import CLIENT_SECRET, Rows, grant

EVENTS = "SELECT type, data FROM mailwright.events_pending WHERE type LIKE 'mailbox.%' ORDER BY id"
REFUSALS = "SELECT state, imap_refusals FROM mailwright.mailboxes"
TOKENS = "SELECT failures, doubted, lease_owner, retry_at > now() AS rests FROM mailwright.mailbox_tokens"
OVER = "UPDATE mailwright.mailbox_tokens SET refresh_at = now(), expires_at = now()"
AT_REST = {"failures": 0, "doubted": [], "lease_owner": None, "rests": None}


@pytest.fixture
def others(settings: Settings) -> Iterator[list[Runtime]]:
    """Other processes, as far as the database can tell."""
    opened = [Runtime.open(settings) for _ in range(3)]
    yield opened
    for each in opened:
        each.close()


def token_of(route: Route) -> str:
    assert isinstance(route.password, AccessToken)
    return route.password.text


def test_a_sync_refreshes_what_is_over_and_logs_in(
    runtime: Runtime, token_server: TokenServer, oauth_dovecot: Dovecot, mailbox: Mailbox, rows: Rows
) -> None:
    oauth_dovecot.deliver(mailbox.address, b"Subject: hello\r\n\r\nyou\r\n")

    sync_now(runtime, mailbox.id, passes=2)

    assert [row["subject"] for row in rows("SELECT subject FROM mailwright.messages")] == ["hello"]
    assert token_server.asked["refresh_token"] == 1
    assert rows("SELECT last_error FROM mailwright.schedule") == [{"last_error": None}]


def test_many_at_once_make_one_request(
    runtime: Runtime, others: list[Runtime], token_server: TokenServer, mailbox: Mailbox, rows: Rows
) -> None:
    token_server.manners.pause = 0.5

    with ThreadPoolExecutor(12) as pool:
        routes = list(
            pool.map(
                lambda number: open_route([runtime, *others][number % 4], mailbox.id, Protocol.IMAP),
                range(12),
            )
        )

    assert token_server.asked["refresh_token"] == 1
    assert {token_server.whose(token_of(route)) for route in routes} == {mailbox.address}
    assert rows(TOKENS) == [AT_REST]


def test_each_rotated_token_is_the_next_one_used(
    runtime: Runtime, token_server: TokenServer, mailbox: Mailbox, rows: Rows
) -> None:
    """The server ends the grant when an old one comes back."""
    seen = set()
    for _ in range(4):
        rows(OVER)
        seen.add(token_of(open_route(runtime, mailbox.id, Protocol.IMAP)))

    assert len(seen) == 4
    assert token_server.asked["refresh_token"] == 4


def test_a_token_due_is_refreshed_early_and_a_fault_then_harms_nobody(
    runtime: Runtime, token_server: TokenServer, mailbox: Mailbox, rows: Rows
) -> None:
    first = token_of(open_route(runtime, mailbox.id, Protocol.IMAP))
    rows("UPDATE mailwright.mailbox_tokens SET refresh_at = now()")
    token_server.manners.instead = (500, b"out of order")

    assert token_of(open_route(runtime, mailbox.id, Protocol.IMAP)) == first
    assert token_of(open_route(runtime, mailbox.id, Protocol.IMAP)) == first  # rests, and does not ask
    assert token_server.asked["instead"] == 1

    token_server.manners.instead = None
    rows("UPDATE mailwright.mailbox_tokens SET retry_at = now()")
    assert token_of(open_route(runtime, mailbox.id, Protocol.IMAP)) != first
    assert rows(TOKENS) == [AT_REST]


@pytest.mark.parametrize(
    "manners",
    [
        Manners(instead=(502, b"<h1>bad gateway</h1>")),
        Manners(instead=(200, b"{}")),
        Manners(secret="another secret"),
    ],
)
def test_a_token_server_out_of_order_is_asked_ever_more_rarely_and_nobody_is_blamed(
    manners: Manners, runtime: Runtime, token_server: TokenServer, mailbox: Mailbox, rows: Rows
) -> None:
    token_server.manners = manners

    for _ in range(3):
        with pytest.raises(NotReady, match="has no access token; the next try is at") as caught:
            open_route(runtime, mailbox.id, Protocol.IMAP)
        assert caught.value.until is not None
        assert CLIENT_SECRET not in str(caught.value)
    sync_now(runtime, mailbox.id)

    assert rows(TOKENS) == [AT_REST | {"failures": 1, "rests": True}]
    assert rows(REFUSALS) == [{"state": "active", "imap_refusals": 0}]
    assert "next try" in rows("SELECT last_error FROM mailwright.schedule")[0]["last_error"]
    token_server.manners = Manners(secret=CLIENT_SECRET)
    rows("UPDATE mailwright.mailbox_tokens SET retry_at = now()")
    sync_now(runtime, mailbox.id)
    assert rows("SELECT last_error FROM mailwright.schedule") == [{"last_error": None}]


def test_a_refused_grant_is_one_event_and_no_storm(
    runtime: Runtime, token_server: TokenServer, mailbox: Mailbox, rows: Rows
) -> None:
    token_server.revoke(mailbox.address)

    for _ in range(3):
        sync_now(runtime, mailbox.id)
        with pytest.raises(NotReady, match="mailbox authorize"):
            open_route(runtime, mailbox.id, Protocol.IMAP)

    assert token_server.asked["refresh_token"] == 1
    assert rows(REFUSALS) == [{"state": "needs_attention", "imap_refusals": 3}]
    [event] = rows(EVENTS)
    assert event["type"] == "mailbox.needs_attention"
    assert "invalid_grant" in event["data"]["reason"]
    assert not any(token in str(event) for token in token_server.issued)

    rows("UPDATE mailwright.mailboxes SET imap_retry_at = now()")  # the pause is over: one probe
    sync_now(runtime, mailbox.id)
    sync_now(runtime, mailbox.id)
    assert token_server.asked["refresh_token"] == 2
    assert len(rows(EVENTS)) == 1


def test_a_token_that_ended_early_is_refreshed_once_and_counts_for_nothing(
    runtime: Runtime, token_server: TokenServer, mailbox: Mailbox, rows: Rows
) -> None:
    open_route(runtime, mailbox.id, Protocol.IMAP)
    token_server.expire_access()

    sync_now(runtime, mailbox.id)
    assert rows(TOKENS) == [AT_REST | {"doubted": ["imap"]}]
    sync_now(runtime, mailbox.id)

    assert token_server.asked["refresh_token"] == 2
    assert rows(REFUSALS) == [{"state": "active", "imap_refusals": 0}]
    assert rows(TOKENS) == [AT_REST]


def test_a_fresh_token_that_is_refused_again_counts(
    runtime: Runtime, token_server: TokenServer, provider: Provider, mailbox: Mailbox, rows: Rows
) -> None:
    """Consent was given with another account."""
    other = Mailbox(id=mailbox.id, uid=mailbox.uid, address="other@test.example")
    grant(runtime, provider, token_server, other, lifetime=3600.0)

    for _ in range(4):
        sync_now(runtime, mailbox.id)
        rows("UPDATE mailwright.mailboxes SET imap_retry_at = NULL")

    assert token_server.asked["refresh_token"] == 1
    assert rows(REFUSALS) == [{"state": "needs_attention", "imap_refusals": 3}]
    assert [event["type"] for event in rows(EVENTS)] == ["mailbox.needs_attention"]


def test_a_dead_process_s_lease_runs_out(
    runtime: Runtime, token_server: TokenServer, mailbox: Mailbox, rows: Rows
) -> None:
    rows(
        "UPDATE mailwright.mailbox_tokens SET lease_owner = 'gone', lease_token = 7, "
        "lease_until = clock_timestamp() + interval '1 s'"
    )

    assert token_of(open_route(runtime, mailbox.id, Protocol.IMAP))

    assert token_server.asked["refresh_token"] == 1
    assert rows("SELECT lease_token FROM mailwright.mailbox_tokens") == [{"lease_token": 8}]


def test_who_lost_the_lease_changes_nothing(
    runtime: Runtime, token_server: TokenServer, provider: Provider, mailbox: Mailbox, rows: Rows
) -> None:
    """A new consent comes while the old grant is being refreshed."""
    token_server.manners.pause = 0.7
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(open_route, runtime, mailbox.id, Protocol.IMAP)
        while not rows("SELECT 1 FROM mailwright.mailbox_tokens WHERE lease_owner IS NOT NULL"):
            pass
        given = grant(runtime, provider, token_server, mailbox, lifetime=3600.0)

        assert token_of(slow.result()) == given.access


def test_tokens_go_to_no_other_token_server(runtime: Runtime, mailbox: Mailbox, rows: Rows) -> None:
    rows("UPDATE mailwright.providers SET oauth_token_url = 'http://127.0.0.1:1/token'")

    with pytest.raises(NotReady, match="waits for consent"):
        open_route(runtime, mailbox.id, Protocol.IMAP)


def test_rests_grow_to_a_quarter_of_an_hour() -> None:
    assert [rest_after(n) for n in (1, 2, 3, 50)] == [5.0, 10.0, 20.0, 900.0]
    assert rest_after(1, 1.0) == 4.0
