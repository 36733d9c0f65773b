"""Access tokens refreshed ahead of expiry, once across all processes.

    due ──lease, commit──> asking ──tokens──> sealed and committed ──> used
     ▲                       ├──server down, our settings refused──> rests, longer each time ──> due
     │                       └──grant refused──> the mailbox needs attention (`tasks.mailboxes.health`)
     └──lease over (its holder died)

The token server is asked outside any transaction, under a lease that outlasts the longest request.
What it gave is committed, the rotated refresh token too, before anyone uses the access token; the
commit is fenced, so that a holder who lost the lease, or whose grant was replaced, changes nothing.
While the token at hand is still good, nobody waits and no fault of the token server is felt.
"""

import random
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, assert_never

import structlog
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import now as database_now

from config.errors import NotFound, TransientError, UserError
from schema.tables.mailboxes import Mailbox, MailboxToken
from schema.tables.providers import Provider
from tasks.mailboxes import health, seals, tokens
from tasks.mailboxes.routing import TokenDue, follows, offers, route
from tasks.mailboxes.values import NotReady, Protocol, Route
from tasks.runtime import Runtime
from tasks.wire import oauth
from tasks.wire.oauth import Client, GrantRefused, Tokens

LEASE: Final = 60.0
"""Seconds; a request may wait 20, or twice that where a server wants the client's secret in the header."""
GLANCE: Final = 0.1
"""Seconds between two looks at a token that another process is refreshing."""
FIRST_REST, LONGEST_REST = 5.0, 900.0
"""Seconds after a first failure, and at most."""

_log = structlog.get_logger()

_NOW: Final = text("SELECT clock_timestamp()")
_LANES: Final = (
    text("SELECT FROM mailwright.schedule WHERE mailbox_id = :mailbox_id FOR UPDATE"),
    text("SELECT FROM mailwright.outbox_lanes WHERE mailbox_id = :mailbox_id FOR UPDATE"),
)


def open_route(runtime: Runtime, mailbox_id: int, protocol: Protocol) -> Route:
    """The way to a mailbox's server, its secret opened and, if it is an access token, good.

    May ask a token server: for use outside any transaction. Raises `NotReady`, `NotFound`, as
    `tasks.mailboxes.routing.route` does, also where no access token can be had now.
    """
    try:
        with runtime.db.begin() as session:
            found = route(session, runtime.keyring, mailbox_id, protocol)
    except TokenDue:
        refresh(runtime, mailbox_id, urgent=True)
    else:
        if not found.renewal_due:
            return found
        refresh(runtime, mailbox_id, urgent=False)
    with runtime.db.begin() as session:
        return route(session, runtime.keyring, mailbox_id, protocol)


def refresh(runtime: Runtime, mailbox_id: int, *, urgent: bool) -> None:
    """See to it that the access token is fresh; ``urgent``: the one at hand is over.

    Raises `NotReady` where the grant was refused, and, if urgent, where the token server does not help.
    """
    until = time.monotonic() + LEASE
    while True:
        match _take(runtime, mailbox_id):
            case None:
                return
            case Elsewhere():
                if not urgent:
                    return
                if time.monotonic() > until or runtime.stopping.wait(GLANCE):
                    raise NotReady("another process refreshes the access token and has not come back yet.")
            case Rests() as rests:
                if not urgent:
                    return
                raise rests.why
            case Turn() as turn:
                _ask(runtime, turn, urgent)
            case other:
                assert_never(other)


@dataclass(frozen=True, slots=True)
class Turn:
    """It is ours to refresh: the lease's fencing token, and what the request needs."""

    mailbox_id: int
    address: str
    fence: int
    client: Client
    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another process is at it."""


@dataclass(frozen=True, slots=True)
class Rests:
    """The last try failed, and the next is not due."""

    why: NotReady


def _take(runtime: Runtime, mailbox_id: int) -> Turn | Elsewhere | Rests | None:
    """Take the lease, if the token is due and nobody has it."""
    with runtime.db.begin() as session:
        row = tokens.row_of(session, mailbox_id, lock=True)
        mailbox = session.get(Mailbox, mailbox_id)
        if mailbox is None:
            raise NotFound("the mailbox was removed.")
        provider = session.get_one(Provider, mailbox.provider_id)
        pair = tokens.opened(runtime.keyring, mailbox, provider, row)
        assert row is not None
        client = tokens.client_of(provider, runtime.keyring)
        now: datetime = session.execute(_NOW).scalar_one()
        if row.refresh_at > now:
            return None
        if row.lease_until is not None and row.lease_until > now:
            return Elsewhere()
        if row.retry_at is not None and row.retry_at > now:
            return Rests(tokens.resting(mailbox, row.last_error, row.retry_at))
        row.lease_owner, row.lease_until = runtime.owner, now + timedelta(seconds=LEASE)
        row.lease_token += 1
        return Turn(mailbox_id, mailbox.address, row.lease_token, client, pair.refresh)


def _ask(runtime: Runtime, turn: Turn, urgent: bool) -> None:
    try:
        given = oauth.refresh(turn.client, turn.refresh_token)
    except GrantRefused as error:
        _log.warning("token.grant_refused", mailbox_id=turn.mailbox_id, words=error.words)
        with runtime.db.begin() as session:
            _refused(session, turn, error)
        raise NotReady(f"{error} Consent again: mailwright mailbox authorize {turn.address}") from None
    except (TransientError, UserError) as error:
        _log.warning("token.refresh_failed", mailbox_id=turn.mailbox_id, error=str(error))
        with runtime.db.begin() as session:
            why = _failed(session, turn, str(error))
        if urgent and why is not None:
            raise why from None
        return
    with runtime.db.begin() as session:
        kept = _keep(session, runtime, turn, given)
    _log.info("token.refreshed", mailbox_id=turn.mailbox_id, kept=kept, rotated=given.refresh is not None)


def _fenced(session: Session, turn: Turn) -> MailboxToken | None:
    """The row, locked, if the lease is still ours."""
    row = tokens.row_of(session, turn.mailbox_id, lock=True)
    if row is None or row.lease_token != turn.fence or row.lease_owner is None:
        return None
    return row


def _keep(session: Session, runtime: Runtime, turn: Turn, given: Tokens) -> bool:
    seals.hold_ring(session)
    row = _fenced(session, turn)
    if row is None:
        return False
    uid = session.get_one(Mailbox, turn.mailbox_id).uid
    pair = tokens.Pair(given.access, given.refresh or turn.refresh_token)
    sealed = tokens.seal(runtime.keyring, uid, pair, row.issuer, row.route)
    row.key_id, row.nonce, row.sealed = sealed.key_id, sealed.nonce, sealed.sealed
    row.refresh_at, row.expires_at = tokens.due(given.lifetime, session.execute(_NOW).scalar_one())
    row.failures, row.retry_at, row.last_error = 0, None, None
    row.lease_owner = row.lease_until = None
    row.updated_at = session.execute(select(database_now())).scalar_one()
    return True


def _failed(session: Session, turn: Turn, error: str) -> NotReady | None:
    """Note a failure that says nothing about the grant; the next try waits, longer each time."""
    row = _fenced(session, turn)
    if row is None:
        return None
    row.failures += 1
    row.last_error = error[:500]
    row.lease_owner = row.lease_until = None
    row.retry_at = session.execute(_NOW).scalar_one() + timedelta(
        seconds=rest_after(row.failures, random.random())
    )
    return tokens.resting(session.get_one(Mailbox, turn.mailbox_id), row.last_error, row.retry_at)


def _refused(session: Session, turn: Turn, error: GrantRefused) -> None:
    """Open the breaker of every protocol that uses the grant; lanes first, as syncs lock them."""
    for lane in _LANES:
        session.execute(lane, {"mailbox_id": turn.mailbox_id})
    mailbox = session.get_one(Mailbox, turn.mailbox_id, with_for_update=True)
    row = _fenced(session, turn)
    if row is None:
        return  # another consent is in place by now
    row.lease_owner = row.lease_until = None
    row.last_error = error.words[:500]
    provider = session.get_one(Provider, mailbox.provider_id)
    concerned = [
        protocol
        for protocol in Protocol
        if tokens.by_oauth(provider, protocol) and offers(provider, protocol) and follows(mailbox, protocol)
    ]
    health.grant_refused(session, turn.mailbox_id, concerned, error.words)


def rest_after(failures: int, draw: float = 0.0) -> float:
    """Seconds of rest after ``failures`` in a row (≥ 1); ``draw`` (0 to 1) takes off up to a fifth."""
    return min(LONGEST_REST, FIRST_REST * 2.0 ** min(failures - 1, 20)) * (1 - 0.2 * draw)
