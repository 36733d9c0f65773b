"""The values that mailboxes are spoken in."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, TypedDict
from uuid import UUID

from config.errors import UserError
from schema.tables.mailboxes import Keep
from tasks.wire.net import Endpoint
from tasks.wire.sasl import Secret

LONGEST_PASSWORD: Final = 1024
"""Characters of a password."""


class Protocol(StrEnum):
    """The two ways a mailbox is talked to."""

    IMAP = "imap"
    SMTP = "smtp"


class NotReady(UserError):
    """A mailbox may not be talked to now. ``until`` is when that ends by itself, None where a person
    has to act."""

    code = "mailbox_not_ready"

    def __init__(self, message: str, until: datetime | None = None) -> None:
        super().__init__(message)
        self.until = until


@dataclass(frozen=True, slots=True)
class Route:
    """All that one protocol's session with a mailbox needs, read in one transaction.

    ``password`` is an access token where the protocol logs in by OAuth 2.0; ``renewal_due``: it is good
    yet, but its time to be refreshed has come. ``smtp_timeout`` is seconds of waiting over one dispatch,
    ``messages_per_minute`` and ``max_message_size`` (bytes) are None where the provider sets no limit.
    """

    mailbox_id: int
    uid: UUID
    address: str
    protocol: Protocol
    endpoint: Endpoint
    login: str
    password: Secret = field(repr=False)
    renewal_due: bool
    smtp_timeout: float
    connections_per_account: int
    messages_per_minute: int | None
    max_message_size: int | None
    max_recipients: int
    trust_condstore: bool
    sent_copy: str
    keep: str
    folders: tuple[str, ...] | None
    history_days: int | None
    notify_from: datetime
    poll_seconds: float | None
    display_name: str | None
    send_as: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewMailbox:
    """A wish for a mailbox. What is None is derived (provider, login) or has no limit (folders,
    history, poll interval); ``notify_from`` None is now. ``password`` may only be None where every
    protocol logs in by OAuth 2.0."""

    address: str
    password: str | None = field(default=None, repr=False)
    provider: str | None = None
    login: str | None = None
    owner: str | None = None
    display_name: str | None = None
    receive: bool = True
    send: bool = True
    folders: tuple[str, ...] | None = None
    history_days: int | None = None
    notify_from: datetime | None = None
    poll_seconds: float | None = None
    keep: Keep = Keep.EVERYTHING
    send_as: tuple[str, ...] = ()


class Changes(TypedDict, total=False):
    """What an edit sets; a field left out stays as it is. None takes a value away."""

    provider: str
    login: str
    password: str
    owner: str | None
    display_name: str | None
    receive: bool
    send: bool
    folders: tuple[str, ...] | None
    history_days: int | None
    notify_from: datetime
    poll_seconds: float | None
    keep: Keep
    send_as: tuple[str, ...]


def check_password(password: str) -> str:
    """``password`` itself. Raises `UserError` where no server could be told it."""
    if not password:
        raise UserError("the password is empty. Give it on standard input with --password-stdin.")
    if len(password) > LONGEST_PASSWORD or any(char in password for char in "\r\n\0"):
        raise UserError(
            f"the password must be one line of at most {LONGEST_PASSWORD} characters; "
            "standard input holds more."
        )
    return password
