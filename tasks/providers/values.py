"""What a provider is: the wish (`ProviderDraft`), the faults found in it, the whole (`ProviderCard`)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from config.errors import UserError
from schema.tables.providers import Authentication, LoginMode, Security, SentCopy

KIND: Final = "IMAP/SMTP"


class Unset(Enum):
    """A field that a draft says nothing about: the default, or what was there before."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET

_Text: TypeAlias = str | Unset
_TextOrNone: TypeAlias = str | Unset | None
_Number: TypeAlias = int | Unset
_NumberOrNone: TypeAlias = int | Unset | None
_Flag: TypeAlias = bool | Unset


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderDraft:
    """What someone wishes a provider to be, unchecked. Choices are text or the enum's members;
    ``logo`` is the picture's bytes and ``ca`` PEM text, None takes either away."""

    name: _Text = UNSET
    receive: _Flag = UNSET
    imap_host: _TextOrNone = UNSET
    imap_port: _Number = UNSET
    imap_security: _Text = UNSET
    imap_authentication: _Text = UNSET
    send: _Flag = UNSET
    smtp_host: _TextOrNone = UNSET
    smtp_port: _Number = UNSET
    smtp_security: _Text = UNSET
    smtp_authentication: _Text = UNSET
    smtp_timeout: _Number = UNSET
    login_mode: _Text = UNSET
    oauth_client_id: _TextOrNone = UNSET
    oauth_client_secret: _TextOrNone = field(default=UNSET, repr=False)
    oauth_token_url: _TextOrNone = UNSET
    oauth_scopes: _TextOrNone = UNSET
    oauth_authorization_url: _TextOrNone = UNSET
    oauth_device_url: _TextOrNone = UNSET
    connections_per_account: _Number = UNSET
    connections_per_host: _Number = UNSET
    messages_per_minute: _NumberOrNone = UNSET
    max_message_size: _NumberOrNone = UNSET
    max_recipients: _Number = UNSET
    sent_copy: _Text = UNSET
    trust_condstore: _Flag = UNSET
    resend_if_absent: _Flag = UNSET
    ca: _TextOrNone = field(default=UNSET, repr=False)
    logo: bytes | Unset | None = field(default=UNSET, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCard:
    """A provider, every rule met; the logo and the OAuth client secret are kept apart.

    ``smtp_timeout`` is in seconds, ``max_message_size`` in bytes (None: what EHLO says),
    ``messages_per_minute`` None means no limit. A host may stay known while its switch is off.
    """

    name: str
    receive: bool = False
    imap_host: str | None = None
    imap_port: int | None = None
    imap_security: Security = Security.TLS
    imap_authentication: Authentication = Authentication.PASSWORD
    send: bool = False
    smtp_host: str | None = None
    smtp_port: int | None = None
    smtp_security: Security = Security.TLS
    smtp_authentication: Authentication = Authentication.PASSWORD
    smtp_timeout: int = 40
    login_mode: LoginMode = LoginMode.EMAIL
    oauth_client_id: str | None = None
    oauth_token_url: str | None = None
    oauth_scopes: str | None = None
    oauth_authorization_url: str | None = None
    oauth_device_url: str | None = None
    connections_per_account: int = 3
    connections_per_host: int = 50
    messages_per_minute: int | None = None
    max_message_size: int | None = None
    max_recipients: int = 100
    sent_copy: SentCopy = SentCopy.APPEND
    trust_condstore: bool = True
    resend_if_absent: bool = False
    ca: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule that a draft breaks: the field's name for programs, a clause for people."""

    field: str
    message: str


class InvalidProvider(UserError):
    """A draft breaks rules; ``faults`` has them all, in the order of the card."""

    code = "invalid_provider"

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(fault.message for fault in self.faults) + ".")


def imap_port_for(security: Security) -> int:
    """993 with SSL/TLS, else 143 (RFC 8314 §3.2, RFC 9051 §2.1)."""
    return 993 if security is Security.TLS else 143


def smtp_port_for(security: Security) -> int:
    """465 with SSL/TLS, 587 with STARTTLS, 25 with none (RFC 8314 §3.3, RFC 6409 §3.1)."""
    match security:
        case Security.TLS:
            return 465
        case Security.STARTTLS:
            return 587
        case Security.NONE:
            return 25
