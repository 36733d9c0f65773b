"""The words that people see on a provider's card: the trade's."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, assert_never

from schema.tables.providers import LoginMode, Paused, Provider, Security, SentCopy
from tasks.access import MASKED
from tasks.providers.authority import count_certificates

PROVIDERS: Final = "List of email providers"
DOMAINS: Final = "Email providers domains"
KIND: Final = "IMAP / SMTP"

FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "receive": "Download emails using protocol: IMAP",
        "imap_host": "IMAP host",
        "imap_port": "IMAP port",
        "imap_security": "IMAP security",
        "imap_authentication": "IMAP authentication",
        "send": "Allow sending emails",
        "smtp_host": "SMTP host",
        "smtp_port": "SMTP port",
        "smtp_security": "SMTP security",
        "smtp_authentication": "SMTP authentication",
        "smtp_timeout": "SMTP response timeout, seconds",
        "login_mode": "Login",
        "oauth_client_id": "OAuth client id",
        "oauth_client_secret": "OAuth client secret",
        "oauth_token_url": "OAuth token URL",
        "oauth_scopes": "OAuth scopes",
        "oauth_authorization_url": "OAuth authorization URL",
        "oauth_device_url": "OAuth device URL",
        "connections_per_account": "Connections per account",
        "connections_per_host": "Connections at work per host",
        "messages_per_minute": "Messages a minute",
        "max_message_size": "Message size, bytes",
        "max_recipients": "Recipients a message",
        "sent_copy": "Copy in Sent",
        "trust_condstore": "Trust CONDSTORE/QRESYNC",
        "resend_if_absent": "If absent, resend",
        "ca": "Certificate authority",
    }
)


def security(value: Security) -> str:
    """What a choice of security is called."""
    match value:
        case Security.TLS:
            return "Use SSL"
        case Security.STARTTLS:
            return "Create encrypted connection (STARTTLS)"
        case Security.NONE:
            return "None: unencrypted"
        case other:
            assert_never(other)


def login(value: LoginMode) -> str:
    """What a way of deriving the login is called."""
    match value:
        case LoginMode.MANUAL:
            return "Enter login manually"
        case LoginMode.USER:
            return "Use user name as login"
        case LoginMode.EMAIL:
            return "Use email address as login"
        case other:
            assert_never(other)


def sent_copy(value: SentCopy) -> str:
    """What a way of filing sent mail is called."""
    match value:
        case SentCopy.APPEND:
            return "We append"
        case SentCopy.SERVER:
            return "The server files it"
        case SentCopy.NONE:
            return "None"
        case other:
            assert_never(other)


def state(disabled: bool, paused: str | None, until: datetime | None, mailboxes: int) -> str:
    """Whether a provider is in use, in a word or two."""
    if disabled:
        return "disabled"
    if paused is not None:
        what = "" if paused == Paused.BOTH else f"{paused} "
        return f"{what}paused" + ("" if until is None else f" until {until:%Y-%m-%d %H:%M} UTC")
    return "in use" if mailboxes else "ready"


def facts(row: Provider, domains: Sequence[str], mailboxes: int) -> dict[str, Any]:
    """The card for programs: plain values by field name, the client secret masked."""
    shown: dict[str, Any] = {"uid": row.uid, "name": row.name, "kind": row.kind, "disabled": row.disabled}
    shown |= {"paused": row.paused, "paused_until": row.paused_until, "paused_reason": row.paused_reason}
    shown["logo_type"] = row.logo_type
    shown |= {name: getattr(row, name) for name in FIELDS}
    shown["oauth_client_secret"] = MASKED if row.oauth_client_secret is not None else None
    return shown | {
        "domains": list(domains),
        "mailboxes": mailboxes,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def labelled(row: Provider, domains: Sequence[str], mailboxes: int) -> dict[str, Any]:
    """The card for people: labels and words."""
    plain = facts(row, domains, mailboxes)
    plain["imap_security"] = security(Security(row.imap_security)) if row.imap_host else None
    plain["smtp_security"] = security(Security(row.smtp_security)) if row.smtp_host else None
    plain["login_mode"] = login(LoginMode(row.login_mode))
    plain["sent_copy"] = sent_copy(SentCopy(row.sent_copy))
    plain["messages_per_minute"] = row.messages_per_minute or "no limit"
    plain["max_message_size"] = row.max_message_size or "what the server's EHLO says"
    plain["ca"] = None if row.ca is None else f"{count_certificates(row.ca)} certificates of its own"
    return {
        "Name": row.name,
        "Kind": KIND,
        "State": state(row.disabled, row.paused, row.paused_until, mailboxes),
        **({"Reason": row.paused_reason} if row.paused_reason else {}),
        "Logo": row.logo_type,
        **{label: plain[name] for name, label in FIELDS.items()},
        "Domains": list(domains),
        "Mailboxes": mailboxes,
        "Created": row.created_at,
        "Changed": row.updated_at,
    }
