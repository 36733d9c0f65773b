"""A mailbox's OAuth 2.0 tokens: sealed, stored, opened, and what the mail server's word means for them.

Both tokens stand under one seal, tied to the mailbox, to the token server that gave them, and to the
mail hosts that may be shown the access token (`tasks.mailboxes.seals`).
"""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import now as database_now

from config.errors import UserError
from schema.tables.mailboxes import Mailbox, MailboxToken
from schema.tables.providers import Authentication, Provider
from tasks import providers
from tasks.mailboxes import seals
from tasks.mailboxes.values import NotReady, Protocol
from tasks.secrets import KeyRing, Sealed
from tasks.wire import oauth
from tasks.wire.oauth import Client, Tokens

AHEAD: Final = 300.0
"""Seconds before its expiry at which an access token is refreshed, or a tenth of its life if that is less."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An access token, and the refresh token that will bring the next."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)


def by_oauth(provider: Provider, protocol: Protocol) -> bool:
    """Whether ``protocol`` logs in by OAuth 2.0 at ``provider``."""
    match protocol:
        case Protocol.IMAP:
            return provider.imap_authentication == Authentication.OAUTH2
        case Protocol.SMTP:
            return provider.smtp_authentication == Authentication.OAUTH2


def client_of(provider: Provider, keyring: KeyRing) -> Client:
    """Who we are to the provider's token server. Raises `NotReady` where the card lacks it."""
    if not provider.oauth_client_id or not provider.oauth_token_url:
        raise NotReady(
            f'"{provider.name}" logs in by OAuth 2.0 but lacks its client id or token URL. Give them: '
            f'mailwright provider edit "{provider.name}" --oauth-client-id ID --oauth-token-url URL'
        )
    packed = provider.oauth_client_secret
    return Client(
        provider.oauth_client_id,
        provider.oauth_token_url,
        None if packed is None else providers.open_client_secret(keyring, provider.uid, packed),
        provider.oauth_scopes,
        provider.ca,
    )


def issuer_of(provider: Provider) -> str:
    """The token server of ``provider``, as tokens are sealed for it; "" where there is none."""
    try:
        return oauth.origin(provider.oauth_token_url or "")
    except ValueError:
        return ""


def row_of(session: Session, mailbox_id: int, *, lock: bool = False) -> MailboxToken | None:
    """The stored tokens of a mailbox, fresh from the database."""
    query = select(MailboxToken).where(MailboxToken.mailbox_id == mailbox_id)
    return session.execute(
        (query.with_for_update() if lock else query).execution_options(populate_existing=True)
    ).scalar_one_or_none()


def opened(keyring: KeyRing, mailbox: Mailbox, provider: Provider, row: MailboxToken | None) -> Pair:
    """The tokens, for their own token server only. Raises `NotReady` where there are none for it."""
    if row is None or row.issuer != issuer_of(provider):
        raise unauthorized(mailbox)
    return unsealed(keyring, mailbox.uid, row)


def unauthorized(mailbox: Mailbox) -> NotReady:
    """The answer where nobody consented yet, or at another token server."""
    return NotReady(
        f"{mailbox.address} waits for consent: its provider logs in by OAuth 2.0. "
        f"Give it: mailwright mailbox authorize {mailbox.address}"
    )


def resting(mailbox: Mailbox, error: str | None, until: datetime) -> NotReady:
    """The answer while no access token can be had."""
    return NotReady(
        f"{mailbox.address} has no access token; the next try is at {until:%Y-%m-%d %H:%M:%S} UTC. "
        f"{error or ''}".rstrip(),
        until,
    )


def store(
    session: Session, keyring: KeyRing, mailbox: Mailbox, provider: Provider, given: Tokens, now: datetime
) -> None:
    """Store what a consent gave, in place of what was there; whoever refreshes the old ones has lost.

    Raises `UserError` where no refresh token is among it.
    """
    if given.refresh is None:
        raise UserError(
            "the service gave no refresh token, so access would end within the hour. Ask for one by the "
            "provider's scopes (often offline_access) or in its authorization URL (access_type=offline)."
        )
    seals.hold_ring(session)
    issuer, route = issuer_of(provider), seals.route_of(provider)
    sealed = seal(keyring, mailbox.uid, Pair(given.access, given.refresh), issuer, route)
    refresh_at, expires_at = due(given.lifetime, now)
    row = {
        "key_id": sealed.key_id,
        "nonce": sealed.nonce,
        "sealed": sealed.sealed,
        "issuer": issuer,
        "route": route,
        "refresh_at": refresh_at,
        "expires_at": expires_at,
        "doubted": [],
        "failures": 0,
        "retry_at": None,
        "last_error": None,
        "lease_owner": None,
        "lease_until": None,
    }
    statement = insert(MailboxToken).values(mailbox_id=mailbox.id, **row)
    again = {
        "lease_token": MailboxToken.lease_token + 1,
        "authorized_at": text("now()"),
        "updated_at": text("now()"),
    }
    session.execute(
        statement.on_conflict_do_update(index_elements=[MailboxToken.mailbox_id], set_=row | again)
    )


def due(lifetime: float, now: datetime) -> tuple[datetime, datetime]:
    """When an access token of ``lifetime`` seconds is to be refreshed, and when it ends."""
    ahead = min(AHEAD, lifetime / 10)
    return now + timedelta(seconds=lifetime - ahead), now + timedelta(seconds=lifetime)


def seal(keyring: KeyRing, uid: UUID, pair: Pair, issuer: str, route: str) -> Sealed:
    """Encrypt a pair of tokens for a token server and a route."""
    plain = json.dumps({"access": pair.access, "refresh": pair.refresh})
    return keyring.seal(plain, _context(uid, issuer, route))


def unsealed(keyring: KeyRing, uid: UUID, row: MailboxToken) -> Pair:
    """Decrypt. Raises `UserError` where the ring lacks the key or the row was tampered with."""
    sealed = Sealed(row.key_id, row.nonce, row.sealed)
    found = json.loads(keyring.open(sealed, _context(uid, row.issuer, row.route)))
    return Pair(found["access"], found["refresh"])


def reseal(keyring: KeyRing, uid: UUID, row: MailboxToken, route: str | None = None) -> None:
    """Seal a row again: under the ring's last key, and for another route where one is given."""
    pair = unsealed(keyring, uid, row)
    row.route = row.route if route is None else route
    sealed = seal(keyring, uid, pair, row.issuer, row.route)
    row.key_id, row.nonce, row.sealed = sealed.key_id, sealed.nonce, sealed.sealed


def doubt(session: Session, mailbox_id: int, protocol: Protocol) -> bool:
    """A server refused an access token. True where that does not count yet: the token was not over, so
    it may have ended early, and is to be refreshed before the next login. Only once until a login works.
    """
    row = row_of(session, mailbox_id, lock=True)
    if row is None or protocol in row.doubted:
        return False
    provider = session.execute(
        select(Provider).join(Mailbox, Mailbox.provider_id == Provider.id).where(Mailbox.id == mailbox_id)
    ).scalar_one()
    if not by_oauth(provider, protocol):
        return False
    row.doubted = [*row.doubted, protocol.value]
    row.refresh_at = row.expires_at = session.execute(select(database_now())).scalar_one()
    session.flush()
    return True


def trust(session: Session, mailbox_id: int, protocol: Protocol) -> None:
    """A login worked: the next refusal by this protocol's server may be doubted again."""
    row = row_of(session, mailbox_id, lock=True)
    if row is not None and protocol in row.doubted:
        row.doubted = [name for name in row.doubted if name != protocol]
        session.flush()


def try_now(session: Session, mailbox_id: int) -> None:
    """Let the next refresh happen at once, keeping the count of failures."""
    session.execute(update(MailboxToken).where(MailboxToken.mailbox_id == mailbox_id).values(retry_at=None))


def _context(uid: UUID, issuer: str, route: str) -> str:
    return f"mailbox tokens:{uid}|{issuer}|{route}"
