"""From a mailbox to the way to its server: the one place where its password or tokens are opened."""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from config.errors import NotFound
from schema.tables.mailboxes import Mailbox, MailboxSecret, MailboxState, MailboxToken
from schema.tables.providers import Paused, Provider
from tasks.mailboxes import seals, tokens
from tasks.mailboxes.values import NotReady, Protocol, Route
from tasks.secrets import KeyRing
from tasks.wire.net import Endpoint, Security
from tasks.wire.sasl import AccessToken, Secret

_STORED: Final = (
    select(Mailbox, Provider, MailboxSecret, MailboxToken, func.clock_timestamp())
    .join(Provider, Provider.id == Mailbox.provider_id)
    .outerjoin(MailboxSecret, MailboxSecret.mailbox_id == Mailbox.id)
    .outerjoin(MailboxToken, MailboxToken.mailbox_id == Mailbox.id)
    .where(Mailbox.id == bindparam("mailbox_id"))
    .execution_options(populate_existing=True)
)


class TokenDue(NotReady):
    """The access token at hand is over; `tasks.mailboxes.open_route` refreshes it."""


def route(session: Session, keyring: KeyRing, mailbox_id: int, protocol: Protocol) -> Route:
    """The route to a mailbox's server, its password or access token opened.

    Raises `NotReady` where it may not be used now (paused, credentials refused lately, awaiting a
    confirmation or consent, provider disabled, protocol off, access token over), `NotFound` where it is
    gone.
    """
    row = session.execute(_STORED, {"mailbox_id": mailbox_id}).one_or_none()
    if row is None:
        raise NotFound("the mailbox was removed.")
    mailbox, provider, secret, token, now = row
    require_ready(mailbox, provider, protocol, datetime.now(UTC))
    if not tokens.by_oauth(provider, protocol):
        return _route(mailbox, provider, protocol, password_of(keyring, mailbox, provider, secret, protocol))
    access = access_token_of(keyring, mailbox, provider, token, protocol)
    if token.expires_at <= now:
        if token.retry_at is not None and token.retry_at > now:
            raise tokens.resting(mailbox, token.last_error, token.retry_at)
        raise TokenDue(f"the access token of {mailbox.address} is over.", now)
    return _route(mailbox, provider, protocol, access, renewal_due=token.refresh_at <= now)


def password_of(
    keyring: KeyRing, mailbox: Mailbox, provider: Provider, secret: MailboxSecret | None, protocol: Protocol
) -> str:
    """The password, if it may be shown to the provider's present host. Raises `NotReady`."""
    if secret is None:
        raise NotReady(
            f"{mailbox.address} has no password. Give it: "
            f"mailwright mailbox edit {mailbox.address} --password-stdin"
        )
    if not seals.covers(secret.route, seals.part(seals.route_of(provider), protocol)):
        raise awaiting(mailbox)
    return seals.unseal(keyring, mailbox.uid, secret)


def access_token_of(
    keyring: KeyRing, mailbox: Mailbox, provider: Provider, row: MailboxToken | None, protocol: Protocol
) -> AccessToken:
    """The access token, over or not, if it may be shown to the provider's present host. Raises `NotReady`."""
    pair = tokens.opened(keyring, mailbox, provider, row)
    assert row is not None
    if not seals.covers(row.route, seals.part(seals.route_of(provider), protocol)):
        raise awaiting(mailbox)
    return AccessToken(pair.access)


def endpoint_of(provider: Provider, protocol: Protocol) -> Endpoint:
    """Where a provider is reached by ``protocol``, which it offers."""
    match protocol:
        case Protocol.IMAP:
            host, port, security = provider.imap_host, provider.imap_port, provider.imap_security
        case Protocol.SMTP:
            host, port, security = provider.smtp_host, provider.smtp_port, provider.smtp_security
    assert host is not None
    assert port is not None
    return Endpoint(host.lower(), port, Security(security), provider.ca)


def offers(provider: Provider, protocol: Protocol) -> bool:
    """Whether the provider's switch for ``protocol`` is on."""
    return provider.receive if protocol is Protocol.IMAP else provider.send


def rests(provider: Provider, protocol: Protocol, now: datetime) -> bool:
    """Whether the provider's use by ``protocol`` is paused."""
    mine = Paused.RECEIVING if protocol is Protocol.IMAP else Paused.SENDING
    over = provider.paused_until is not None and provider.paused_until <= now
    return provider.paused in (mine, Paused.BOTH) and not over


def follows(mailbox: Mailbox, protocol: Protocol) -> bool:
    """Whether the mailbox's own switch for ``protocol`` is on."""
    return mailbox.receive if protocol is Protocol.IMAP else mailbox.send


def awaiting(mailbox: Mailbox) -> NotReady:
    """The refusal to show a password to a place nobody confirmed."""
    return NotReady(
        f"{mailbox.address} waits for a confirmation: its provider's host changed or its security "
        f"became weaker. Once you trust the new place: mailwright mailbox confirm {mailbox.address}"
    )


def require_ready(mailbox: Mailbox, provider: Provider, protocol: Protocol, now: datetime) -> None:
    address = mailbox.address
    reason = f" ({mailbox.state_reason})" if mailbox.state_reason else ""
    retry_at = mailbox.imap_retry_at if protocol is Protocol.IMAP else mailbox.smtp_retry_at
    match MailboxState(mailbox.state):
        case MailboxState.REMOVING:
            raise NotReady(f"{address} is being removed.")
        case MailboxState.PAUSED if mailbox.paused_until is None:
            raise NotReady(f"{address} is paused{reason}. Resume it: mailwright mailbox resume {address}")
        case MailboxState.PAUSED if (until := mailbox.paused_until) is not None and until > now:
            raise NotReady(
                f"{address} is paused until {until:%Y-%m-%d %H:%M} UTC{reason}. "
                f"Resume it now: mailwright mailbox resume {address}",
                until,
            )
        case _:
            pass
    if provider.disabled:
        raise NotReady(
            f'the provider of {address}, "{provider.name}", is disabled. '
            f'Enable it: mailwright provider enable "{provider.name}"'
        )
    if rests(provider, protocol, now):
        until = provider.paused_until
        ends = "" if until is None else f" until {until:%Y-%m-%d %H:%M} UTC"
        why = f" ({provider.paused_reason})" if provider.paused_reason else ""
        doing = "receiving" if protocol is Protocol.IMAP else "sending"
        raise NotReady(
            f'{doing} is paused{ends} for the provider of {address}, "{provider.name}"{why}. '
            f'Resume it: mailwright provider resume "{provider.name}"',
            until,
        )
    if not (offers(provider, protocol) and follows(mailbox, protocol)):
        raise NotReady(f"{address} does not {'receive' if protocol is Protocol.IMAP else 'send'}.")
    if mailbox.awaiting_confirmation:
        raise awaiting(mailbox)
    if retry_at is not None and retry_at > now:
        mend = (
            f"authorize {address}"
            if tokens.by_oauth(provider, protocol)
            else f"edit {address} --password-stdin"
        )
        raise NotReady(
            f"{protocol.upper()} refused the credentials of {address}; the next try is at "
            f"{retry_at:%Y-%m-%d %H:%M} UTC. Mend them: mailwright mailbox {mend}",
            retry_at,
        )


def _route(
    mailbox: Mailbox, provider: Provider, protocol: Protocol, password: Secret, *, renewal_due: bool = False
) -> Route:
    return Route(
        mailbox_id=mailbox.id,
        uid=mailbox.uid,
        address=mailbox.address,
        protocol=protocol,
        endpoint=endpoint_of(provider, protocol),
        login=mailbox.login,
        password=password,
        renewal_due=renewal_due,
        smtp_timeout=float(provider.smtp_timeout),
        connections_per_account=provider.connections_per_account,
        messages_per_minute=provider.messages_per_minute,
        max_message_size=provider.max_message_size,
        max_recipients=provider.max_recipients,
        trust_condstore=provider.trust_condstore,
        sent_copy=provider.sent_copy,
        keep=mailbox.keep,
        folders=None if mailbox.folders is None else tuple(mailbox.folders),
        history_days=mailbox.history_days,
        notify_from=mailbox.notify_from,
        poll_seconds=mailbox.poll_seconds,
        display_name=mailbox.display_name,
        send_as=tuple(mailbox.send_as),
    )
