"""Whose mail: mailboxes and their sealed secrets."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, false, text, true
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.access import User
from schema.tables.base import Base, Key, Moment, Uid, one_of
from schema.tables.providers import Provider


class MailboxState(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    NEEDS_ATTENTION = "needs_attention"
    REMOVING = "removing"


class Keep(StrEnum):
    """What is stored of each message."""

    HEADERS = "headers"
    TEXT = "text"
    EVERYTHING = "everything"


class Mailbox(Base):
    """``address_key`` is the address with the local part as given, the domain as lower-case A-label."""

    __tablename__ = "mailboxes"

    id: Mapped[Key]
    uid: Mapped[Uid]
    address: Mapped[str]
    address_key: Mapped[str] = mapped_column(unique=True)
    provider_id: Mapped[int] = mapped_column(ForeignKey(Provider.id), index=True)
    login: Mapped[str]
    owner_id: Mapped[int | None] = mapped_column(ForeignKey(User.id), index=True)
    display_name: Mapped[str | None]
    receive: Mapped[bool] = mapped_column(server_default=true())
    send: Mapped[bool] = mapped_column(server_default=true())
    folders: Mapped[list[str] | None]  # NULL: every selectable folder
    history_days: Mapped[int | None]  # NULL: all there is; 0: none
    notify_from: Mapped[Moment]
    poll_seconds: Mapped[float | None]  # NULL: adaptive between the settings' bounds
    keep: Mapped[str] = mapped_column(server_default=Keep.EVERYTHING)
    send_as: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    state: Mapped[str] = mapped_column(server_default=MailboxState.ACTIVE)
    state_reason: Mapped[str | None]
    paused_until: Mapped[datetime | None]
    awaiting_confirmation: Mapped[bool] = mapped_column(server_default=false())
    connected_at: Mapped[datetime | None]  # the first login that worked
    imap_refusals: Mapped[int] = mapped_column(server_default=text("0"))  # of the credentials, in a row
    imap_retry_at: Mapped[datetime | None]
    smtp_refusals: Mapped[int] = mapped_column(server_default=text("0"))
    smtp_retry_at: Mapped[datetime | None]
    created_at: Mapped[Moment]
    updated_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("address LIKE '%_@_%'", name="address"),
        CheckConstraint("length(login) BETWEEN 1 AND 320", name="login"),
        CheckConstraint("poll_seconds > 0", name="poll_seconds"),
        CheckConstraint("history_days >= 0", name="history_days"),
        one_of("keep", Keep),
        one_of("state", MailboxState),
        Index("mailboxes_paused", "paused_until", postgresql_where=text("state = 'paused'")),
        Index("mailboxes_removing", "id", postgresql_where=text("state = 'removing'")),
    )


class MailboxSecret(Base):
    """A password under AES-GCM. ``route`` says to which hosts, under which security, it may be shown;
    it is part of the associated data, so a secret sealed for one host cannot be opened for another."""

    __tablename__ = "mailbox_secrets"

    mailbox_id: Mapped[int] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"), primary_key=True)
    key_id: Mapped[str]
    nonce: Mapped[bytes] = mapped_column(LargeBinary)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    route: Mapped[str]
    updated_at: Mapped[Moment]


class MailboxToken(Base):
    """A mailbox's OAuth 2.0 tokens under AES-GCM, access and refresh token in one seal.

    ``issuer`` is the origin of the token server, ``route`` as in `MailboxSecret`; both are part of the
    associated data. The lease (owner, token, until) is held by whoever refreshes. ``doubted`` names the
    protocols whose server refused a token before its time, for which it was refreshed once.
    """

    __tablename__ = "mailbox_tokens"

    mailbox_id: Mapped[int] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"), primary_key=True)
    key_id: Mapped[str]
    nonce: Mapped[bytes] = mapped_column(LargeBinary)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    issuer: Mapped[str]
    route: Mapped[str]
    refresh_at: Mapped[datetime]  # ahead of expiry
    expires_at: Mapped[datetime]  # of the access token
    doubted: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    failures: Mapped[int] = mapped_column(server_default=text("0"))  # of refreshing, in a row
    retry_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(server_default=text("0"))
    lease_until: Mapped[datetime | None]
    authorized_at: Mapped[Moment]
    updated_at: Mapped[Moment]
