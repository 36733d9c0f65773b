"""Mail services and the domains they serve."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, false, func, text, true
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.access import a_name
from schema.tables.base import Base, Key, Moment, Uid, one_of


class Security(StrEnum):
    TLS = "tls"
    STARTTLS = "starttls"
    NONE = "none"


class LoginMode(StrEnum):
    """How a mailbox's login is derived: by hand, the part before the @, or the whole address."""

    MANUAL = "manual"
    USER = "user"
    EMAIL = "email"


class Authentication(StrEnum):
    PASSWORD = "password"  # noqa: S105
    OAUTH2 = "oauth2"


class SentCopy(StrEnum):
    """Who files the copy in Sent: we append it, the server does, nobody."""

    APPEND = "append"
    SERVER = "server"
    NONE = "none"


class Paused(StrEnum):
    """Which use of a provider rests."""

    RECEIVING = "receiving"
    SENDING = "sending"
    BOTH = "both"


def a_web_address(column: str) -> CheckConstraint:
    """A check that ``column`` is an https address, or one on loopback."""
    return CheckConstraint(
        f"{column} ~ '^https://[^ ]+$' OR {column} ~ '^http://(localhost|127[.]0[.]0[.]1|[[]::1[]])[:/]'",
        name=column,
    )


def a_host(column: str) -> CheckConstraint:
    """A check that ``column`` looks like a lower-case DNS name of A-labels or an IP address."""
    return CheckConstraint(
        f"length({column}) <= 253 AND {column} ~ '^[a-z0-9:]([a-z0-9.:-]*[a-z0-9:])?$'", name=column
    )


class Provider(Base):
    __tablename__ = "providers"

    id: Mapped[Key]
    uid: Mapped[Uid]
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str] = mapped_column(server_default="IMAP/SMTP")
    disabled: Mapped[bool] = mapped_column(server_default=false())
    paused: Mapped[str | None]
    paused_until: Mapped[datetime | None]  # NULL: until somebody resumes it
    paused_reason: Mapped[str | None]
    logo: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    logo_type: Mapped[str | None]

    receive: Mapped[bool] = mapped_column(server_default=false())
    imap_host: Mapped[str | None]
    imap_port: Mapped[int | None]
    imap_security: Mapped[str] = mapped_column(server_default=Security.TLS)
    imap_authentication: Mapped[str] = mapped_column(server_default=Authentication.PASSWORD)

    send: Mapped[bool] = mapped_column(server_default=false())
    smtp_host: Mapped[str | None]
    smtp_port: Mapped[int | None]
    smtp_security: Mapped[str] = mapped_column(server_default=Security.TLS)
    smtp_authentication: Mapped[str] = mapped_column(server_default=Authentication.PASSWORD)
    smtp_timeout: Mapped[int] = mapped_column(server_default=text("40"))

    login_mode: Mapped[str] = mapped_column(server_default=LoginMode.EMAIL)
    oauth_client_id: Mapped[str | None]
    oauth_client_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    oauth_token_url: Mapped[str | None]
    oauth_scopes: Mapped[str | None]
    oauth_authorization_url: Mapped[str | None]
    oauth_device_url: Mapped[str | None]

    connections_per_account: Mapped[int] = mapped_column(server_default=text("3"))
    connections_per_host: Mapped[int] = mapped_column(server_default=text("50"))
    messages_per_minute: Mapped[int | None]
    max_message_size: Mapped[int | None]
    max_recipients: Mapped[int] = mapped_column(server_default=text("100"))

    sent_copy: Mapped[str] = mapped_column(server_default=SentCopy.APPEND)
    trust_condstore: Mapped[bool] = mapped_column(server_default=true())
    resend_if_absent: Mapped[bool] = mapped_column(server_default=false())
    ca: Mapped[str | None]

    created_at: Mapped[Moment]
    updated_at: Mapped[datetime | None]

    __table_args__ = (
        a_name(),
        CheckConstraint("kind = 'IMAP/SMTP'", name="kind"),
        CheckConstraint("receive OR send", name="receive_or_send"),
        CheckConstraint(
            "NOT receive OR (imap_host IS NOT NULL AND imap_port IS NOT NULL)", name="imap_complete"
        ),
        CheckConstraint(
            "NOT send OR (smtp_host IS NOT NULL AND smtp_port IS NOT NULL)", name="smtp_complete"
        ),
        CheckConstraint("imap_port BETWEEN 1 AND 65535", name="imap_port"),
        CheckConstraint("smtp_port BETWEEN 1 AND 65535", name="smtp_port"),
        CheckConstraint("smtp_timeout BETWEEN 1 AND 600", name="smtp_timeout"),
        CheckConstraint("octet_length(logo) BETWEEN 1 AND 262144", name="logo_size"),
        CheckConstraint(
            "(logo IS NULL) = (logo_type IS NULL) AND logo_type IN "
            "('image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/svg+xml')",
            name="logo_type",
        ),
        CheckConstraint("connections_per_account BETWEEN 1 AND 100", name="connections_per_account"),
        CheckConstraint("connections_per_host BETWEEN 1 AND 10000", name="connections_per_host"),
        CheckConstraint("messages_per_minute BETWEEN 1 AND 1000000", name="messages_per_minute"),
        CheckConstraint("max_message_size BETWEEN 1 AND 1099511627776", name="max_message_size"),
        CheckConstraint("max_recipients BETWEEN 1 AND 10000", name="max_recipients"),
        a_host("imap_host"),
        a_host("smtp_host"),
        a_web_address("oauth_token_url"),
        a_web_address("oauth_authorization_url"),
        a_web_address("oauth_device_url"),
        CheckConstraint("ca ~ '^-----BEGIN CERTIFICATE-----' AND ca !~ 'PRIVATE KEY'", name="ca"),
        one_of("imap_security", Security),
        one_of("smtp_security", Security),
        one_of("imap_authentication", Authentication),
        one_of("smtp_authentication", Authentication),
        one_of("login_mode", LoginMode),
        one_of("sent_copy", SentCopy),
        one_of("paused", Paused),
        CheckConstraint(
            "paused IS NOT NULL OR (paused_until IS NULL AND paused_reason IS NULL)", name="pause"
        ),
    )


class ProviderDomain(Base):
    """The lookup domain → provider. ``domain`` is the lower-case A-label form."""

    __tablename__ = "provider_domains"

    id: Mapped[Key]
    uid: Mapped[Uid]
    domain: Mapped[str] = mapped_column(unique=True)
    provider_id: Mapped[int] = mapped_column(ForeignKey(Provider.id), index=True)
    created_at: Mapped[Moment]

    __table_args__ = (
        CheckConstraint(
            "length(domain) <= 253 AND domain ~ "
            "'^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'",
            name="domain",
        ),
    )


Index("providers_lower_name_key", func.lower(Provider.name), unique=True)
