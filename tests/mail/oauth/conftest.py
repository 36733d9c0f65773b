"""A Dovecot that takes access tokens of the lab's token server, and a mailbox that logs in by them."""

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from lab.servers.dovecot import Dovecot, DovecotOptions
from lab.servers.token_server import Manners, TokenServer
from schema.tables.mailboxes import Mailbox
from schema.tables.providers import Provider
from tasks import providers
from tasks.access import SYSTEM
from tasks.mailboxes import NewMailbox, engine, tokens
from tasks.mailboxes.lanes import refresh_lanes
from tasks.providers import ProviderDraft
from tasks.runtime import Runtime
from tasks.wire.oauth import Tokens

CLIENT_SECRET = "client secret"
Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def oauth_host() -> Iterator[tuple[TokenServer, Dovecot, Iterator[str]]]:
    """Both servers, and addresses that nobody used yet."""
    addresses = [f"anna-{secrets.token_hex(4)}@test.example" for _ in range(40)]
    with TokenServer() as server:
        options = DovecotOptions(introspection_url=f"{server.url}/introspect")
        with Dovecot(options=options) as dovecot:
            for address in addresses:
                dovecot.add_user(address, secrets.token_hex(8))
            dovecot.stop()
            dovecot.start()
            yield server, dovecot, iter(addresses)


@pytest.fixture
def token_server(oauth_host: tuple[TokenServer, Dovecot, Iterator[str]]) -> TokenServer:
    """The token server, in its right mind, its counters at zero."""
    server = oauth_host[0]
    server.manners = Manners(secret=CLIENT_SECRET)
    server.asked.clear()
    return server


@pytest.fixture
def oauth_dovecot(oauth_host: tuple[TokenServer, Dovecot, Iterator[str]]) -> Dovecot:
    """The Dovecot."""
    return oauth_host[1]


@pytest.fixture
def address(oauth_host: tuple[TokenServer, Dovecot, Iterator[str]]) -> str:
    """An account that nobody used yet."""
    return next(oauth_host[2])


@pytest.fixture
def rows(runtime: Runtime) -> Rows:
    """Run SQL and give its rows as dictionaries."""

    def read(sql: str, **given: Any) -> list[dict[str, Any]]:
        with runtime.db.begin() as session:
            result = session.execute(text(sql), given)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    return read


@pytest.fixture
def provider(runtime: Runtime, token_server: TokenServer, oauth_dovecot: Dovecot) -> Provider:
    """A provider of test.example whose IMAP logs in by OAuth 2.0."""
    draft = ProviderDraft(
        name="Test",
        imap_host="127.0.0.1",
        imap_port=oauth_dovecot.imap_port,
        imap_security="none",
        imap_authentication="oauth2",
        oauth_client_id=token_server.client_id,
        oauth_client_secret=CLIENT_SECRET,
        oauth_token_url=f"{token_server.url}/token",
        oauth_authorization_url=f"{token_server.url}/authorize",
        oauth_device_url=f"{token_server.url}/device",
        oauth_scopes="mail offline_access",
    )
    with runtime.db.begin() as session:
        return providers.add(SYSTEM, session, draft, ["test.example"], runtime.keyring)


@pytest.fixture
def mailbox(runtime: Runtime, provider: Provider, token_server: TokenServer, address: str) -> Mailbox:
    """A mailbox whose consent was given: its access token is over, its refresh token good."""
    added = engine.add(SYSTEM, runtime, NewMailbox(address)).mailbox
    grant(runtime, provider, token_server, added, lifetime=0.0)
    return added


def grant(
    runtime: Runtime, provider: Provider, server: TokenServer, mailbox: Mailbox, lifetime: float
) -> Tokens:
    """Store a consent as if it had been given; the access token ends after ``lifetime`` seconds."""
    access, refresh = server.grant(mailbox.address)
    given = Tokens(access, refresh, lifetime)
    with runtime.db.begin() as session:
        tokens.store(session, runtime.keyring, mailbox, provider, given, datetime.now(UTC))
        refresh_lanes(session, mailbox.id)
    return given
