"""A provider, a mailbox, and the way to look at what was written."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from schema.tables.access import User
from schema.tables.mailboxes import Mailbox
from schema.tables.providers import Provider, ProviderDomain
from tasks.access import Actor
from tasks.mailboxes import NewMailbox, engine
from tasks.runtime import Runtime

ADMIN = Actor("administrator")
PASSWORD = "correct horse battery staple"

Rows = Callable[..., list[dict[str, Any]]]
Add = Callable[..., Mailbox]


@pytest.fixture
def rows(runtime: Runtime) -> Rows:
    """Run SQL and give its rows as dictionaries."""

    def read(sql: str, **given: Any) -> list[dict[str, Any]]:
        with runtime.db.begin() as session:
            result = session.execute(text(sql), given)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    return read


@pytest.fixture
def provider(runtime: Runtime) -> Provider:
    """A provider of a.example that nothing listens for: for what needs no server."""
    with runtime.db.begin() as session:
        made = Provider(
            name="A",
            receive=True,
            imap_host="imap.a.example",
            imap_port=993,
            send=True,
            smtp_host="smtp.a.example",
            smtp_port=465,
        )
        session.add(made)
        session.flush()
        session.add(ProviderDomain(domain="a.example", provider_id=made.id))
        session.add(User(name="bob"))
    return made


@pytest.fixture
def add(runtime: Runtime, provider: Provider) -> Add:
    """Add a mailbox without a test."""

    def made(address: str = "anna@a.example", **more: Any) -> Mailbox:
        wish = NewMailbox(address, more.pop("password", PASSWORD), **more)
        return engine.add(ADMIN, runtime, wish, test=False).mailbox

    return made
