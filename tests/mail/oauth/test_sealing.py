"""Where tokens may go: not to a new host before someone confirms it, and with the key ring as it rotates."""

import pytest

from lab.servers.token_server import TokenServer
from schema.tables.mailboxes import Mailbox
from schema.tables.providers import Provider
from tasks import providers
from tasks.access import SYSTEM, Actor
from tasks.mailboxes import Changes, NotReady, Protocol, editing, engine, open_route, rotation
from tasks.providers import ProviderDraft
from tasks.runtime import Runtime
from tasks.secrets import append_key, new_key_line, read_key_ring
from tasks.wire.sasl import AccessToken
from tests.mail.oauth.conftest import Rows

ADMIN = Actor("administrator")


def test_a_new_host_gets_no_token_before_it_is_confirmed(
    runtime: Runtime, token_server: TokenServer, mailbox: Mailbox, rows: Rows
) -> None:
    with runtime.db.begin() as session:
        providers.edit(ADMIN, session, "Test", ProviderDraft(imap_host="localhost"))

    with pytest.raises(NotReady, match="waits for a confirmation"):
        open_route(runtime, mailbox.id, Protocol.IMAP)
    assert token_server.asked["refresh_token"] == 0
    rows("UPDATE mailwright.mailboxes SET awaiting_confirmation = false")  # by whoever can write SQL only
    with pytest.raises(NotReady, match="waits for a confirmation"):
        open_route(runtime, mailbox.id, Protocol.IMAP)

    with runtime.db.begin() as session:
        engine.confirm(ADMIN, session, runtime.keyring, mailbox.address)
    assert isinstance(open_route(runtime, mailbox.id, Protocol.IMAP).password, AccessToken)


def test_tokens_move_to_the_new_key(
    runtime: Runtime, token_server: TokenServer, mailbox: Mailbox, rows: Rows
) -> None:
    path = runtime.settings.home / "ring"
    assert runtime.settings.key_ring is not None
    append_key(path, runtime.settings.key_ring.get_secret_value())
    append_key(path, new_key_line())
    runtime.keyring.keys, runtime.keyring.path = read_key_ring(path).keys, path

    rotated = rotation.rotate(SYSTEM, runtime, heard=lambda _done, _total: None, drop_old=True)

    assert len(rotated.dropped) == 1
    assert rows("SELECT key_id FROM mailwright.mailbox_tokens") == [{"key_id": rotated.active}]
    assert open_route(runtime, mailbox.id, Protocol.IMAP)
    with runtime.db.begin() as session:
        assert rotation.check_openable(session, runtime).opened == 1


def test_another_provider_wants_another_consent(
    runtime: Runtime, provider: Provider, token_server: TokenServer, mailbox: Mailbox, rows: Rows
) -> None:
    draft = ProviderDraft(
        name="Other",
        imap_host="127.0.0.1",
        imap_authentication="oauth2",
        oauth_client_id="mailwright",
        oauth_token_url=f"{token_server.url}/token",
    )
    with runtime.db.begin() as session:
        providers.add(ADMIN, session, draft)

    editing.edit(ADMIN, runtime, mailbox.address, Changes(provider="Other"))

    assert rows("SELECT 1 FROM mailwright.mailbox_tokens") == []
    assert rows("SELECT 1 FROM mailwright.schedule WHERE enabled") == []
    with pytest.raises(NotReady, match="waits for consent"):
        open_route(runtime, mailbox.id, Protocol.IMAP)
