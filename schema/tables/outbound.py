"""Mail on its way out: the queue, its bytes, its recipients, its attempts."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, Uuid, false, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import Base, Key, Moment, Uid, one_of
from schema.tables.mailboxes import Mailbox


class State(StrEnum):
    """States of a message in the queue; the moves between them stand in `tasks.outbound.states`."""

    QUEUED = "queued"
    ARMED = "armed"
    DEFERRED = "deferred"
    HELD = "held"
    SENT = "sent"
    FAILED = "failed"
    UNCERTAIN = "uncertain"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class RecipientState(StrEnum):
    """What became of one recipient; ``bounced``: a server took it, and later reported that it failed."""

    PENDING = "pending"
    SENT = "sent"
    DEFERRED = "deferred"
    FAILED = "failed"
    UNCERTAIN = "uncertain"
    BOUNCED = "bounced"


class SuppressionReason(StrEnum):
    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    MANUAL = "manual"


class OutboxLane(Base):
    """One narrow row a mailbox that sends: when it is next due and who holds its lease."""

    __tablename__ = "outbox_lanes"

    mailbox_id: Mapped[int] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"), primary_key=True)
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    provider_id: Mapped[int]
    host: Mapped[str]
    account: Mapped[str]
    next_due_at: Mapped[datetime | None]  # NULL: nothing to send
    none_due_before: Mapped[datetime] = mapped_column(
        server_default=text("'-infinity'")
    )  # of those that wait
    served_at: Mapped[datetime | None]
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(server_default=text("0"))
    lease_until: Mapped[datetime | None]
    connections: Mapped[int] = mapped_column(server_default=text("0"))  # granted with the lease, or resting
    resting_until: Mapped[datetime | None]  # when the last owner closes the connections it kept
    last_owner: Mapped[str | None]
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]
    paused_at: Mapped[datetime | None]  # since when its sending rests
    paused_until: Mapped[datetime | None]
    paused_for: Mapped[str | None]  # who paused it, and why
    window_start: Mapped[datetime | None]
    window_sent: Mapped[int] = mapped_column(server_default=text("0"))

    __table_args__ = (
        Index(
            "outbox_lanes_due",
            "provider_id",
            "next_due_at",
            postgresql_where=text("enabled AND next_due_at IS NOT NULL"),
        ),
        Index("outbox_lanes_busy", "host", postgresql_where=text("connections > 0")),
        {"postgresql_with": {"fillfactor": "70"}},
    )


class OutboxWake(Base):
    """A door's note that a mailbox has mail due. Only inserted and deleted, so that a caller's long
    transaction around ``mailwright.enqueue`` locks no lane; the next claim folds it into the lane."""

    __tablename__ = "outbox_wakes"

    id: Mapped[Key]
    mailbox_id: Mapped[int]
    due_at: Mapped[datetime]


class OutboxTurn(Base):
    """When a provider's mail was last served: who waited longest comes next."""

    __tablename__ = "outbox_turns"

    provider_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    served_at: Mapped[datetime]


class OutboundMessage(Base):
    """A message accepted for sending. A row with ``request`` and no bytes yet is composed, once and
    for ever, before its first attempt."""

    __tablename__ = "outbox"

    id: Mapped[Key]
    uid: Mapped[Uid]
    mailbox_id: Mapped[int] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(server_default=State.QUEUED)
    priority: Mapped[int] = mapped_column(server_default=text("0"))  # higher goes first
    due_at: Mapped[Moment]
    expires_at: Mapped[datetime]
    principal: Mapped[str]
    correlation: Mapped[UUID] = mapped_column(Uuid, server_default=text("mailwright.uuid7()"))
    request: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    envelope_from: Mapped[str | None]
    message_id: Mapped[str | None]
    subject: Mapped[str | None]
    size: Mapped[int | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    lease_token: Mapped[int | None]
    witness: Mapped[UUID | None]  # the unlogged table's sentinel at arming
    cancel_asked: Mapped[bool] = mapped_column(server_default=false())
    held_for: Mapped[str | None]  # who holds it back, and why
    smtputf8: Mapped[bool] = mapped_column(server_default=false())
    eight_bit: Mapped[bool] = mapped_column(server_default=false())
    last_code: Mapped[int | None]
    last_reply: Mapped[str | None]
    error_code: Mapped[str | None]  # why it failed before any server saw it
    created_at: Mapped[Moment]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        one_of("state", State),
        CheckConstraint("priority BETWEEN -100 AND 100", name="priority"),
        Index(
            "outbox_due",
            "mailbox_id",
            text("priority DESC"),
            "due_at",
            "id",
            postgresql_where=text("state IN ('queued', 'deferred')"),
        ),
        Index(
            "outbox_next", "mailbox_id", "due_at", postgresql_where=text("state IN ('queued', 'deferred')")
        ),
        Index("outbox_in_hand", "mailbox_id", postgresql_where=text("state = 'armed'")),
        Index("outbox_uncertain", "mailbox_id", postgresql_where=text("state = 'uncertain'")),
        Index(
            "outbox_message_id", "mailbox_id", "message_id", postgresql_where=text("message_id IS NOT NULL")
        ),
        Index("outbox_mailbox", "mailbox_id", "id"),
    )


class Template(Base):
    """Subject, text and HTML with places for variables; what was accepted keeps the words of then."""

    __tablename__ = "templates"

    id: Mapped[Key]
    uid: Mapped[Uid]
    name: Mapped[str] = mapped_column(unique=True)
    subject: Mapped[str | None]
    text: Mapped[str | None]
    html: Mapped[str | None]
    created_at: Mapped[Moment]
    changed_at: Mapped[Moment]

    __table_args__ = (CheckConstraint("text IS NOT NULL OR html IS NOT NULL", name="body"),)


class OutboundContent(Base):
    """The bytes that every attempt sends, CRLF, without Bcc. The column's storage is EXTERNAL."""

    __tablename__ = "outbox_content"

    outbound_id: Mapped[int] = mapped_column(
        ForeignKey(OutboundMessage.id, ondelete="CASCADE"), primary_key=True
    )
    content: Mapped[bytes] = mapped_column(LargeBinary)


class OutboundRecipient(Base):
    """One recipient and what became of it, in the server's own words."""

    __tablename__ = "outbox_recipients"

    outbound_id: Mapped[int] = mapped_column(
        ForeignKey(OutboundMessage.id, ondelete="CASCADE"), primary_key=True
    )
    ordinal: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str]
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=RecipientState.PENDING)
    code: Mapped[int | None]
    reply: Mapped[str | None]

    __table_args__ = (
        one_of("state", RecipientState),
        CheckConstraint("kind IN ('to', 'cc', 'bcc')", name="kind"),
        {"postgresql_with": {"fillfactor": "70"}},
    )


class Attempt(Base):
    """One try at one message; ``uid`` is the opaque attempt header's value."""

    __tablename__ = "attempts"

    id: Mapped[Key]
    uid: Mapped[UUID] = mapped_column(Uuid, unique=True)
    outbound_id: Mapped[int] = mapped_column(ForeignKey(OutboundMessage.id, ondelete="CASCADE"), index=True)
    number: Mapped[int]
    armed_at: Mapped[Moment]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    stage: Mapped[str | None]
    code: Mapped[int | None]
    reply: Mapped[str | None]
    waited_ms: Mapped[int | None]
    dialogue: Mapped[Any] = mapped_column(JSONB, nullable=True)  # step, code, milliseconds, times of each
    told: Mapped[Any] = mapped_column(JSONB, nullable=True)  # its recipients, where not all of them got it
    evidence: Mapped[str | None]  # what settled a doubtful one, or what was looked for in vain
    settled_at: Mapped[datetime | None]

    __table_args__ = ({"postgresql_with": {"fillfactor": "60"}},)


class Suppression(Base):
    """An address that is not sent to any more, from one mailbox or (NULL) from all. ``outbound_uid`` is the
    message that bounced, ``detail`` the words of who refused it."""

    __tablename__ = "suppressions"

    id: Mapped[Key]
    uid: Mapped[Uid]
    address: Mapped[str]
    mailbox_id: Mapped[int | None] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"), index=True)
    reason: Mapped[str]
    detail: Mapped[str | None]
    outbound_uid: Mapped[UUID | None] = mapped_column(Uuid)
    created_by: Mapped[str]
    created_at: Mapped[Moment]

    __table_args__ = (
        CheckConstraint("address = lower(address)", name="address"),
        one_of("reason", SuppressionReason),
        Index(
            "suppressions_address_key",
            "address",
            "mailbox_id",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
    )


class DataStarted(Base):
    """UNLOGGED: the attempts whose DATA began, and what became of those that are over and not yet
    committed (``outcome``, see `tasks.outbound.store.outcome`). The row of the nil UUID's ``witness`` names
    this life of the table, so that a table emptied by a crash of Postgres is recognised."""

    __tablename__ = "data_started"

    attempt_uid: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    witness: Mapped[UUID | None]
    outcome: Mapped[dict[str, Any] | None] = mapped_column(JSONB)

    __table_args__ = ({"prefixes": ["UNLOGGED"], "postgresql_with": {"fillfactor": "60"}},)


class IdempotencyKey(Base):
    """Keys are unique per (principal, mailbox) through every door."""

    __tablename__ = "idempotency_keys"

    principal: Mapped[str] = mapped_column(primary_key=True)
    mailbox_id: Mapped[int] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    outbound_uid: Mapped[UUID] = mapped_column(Uuid)
    created_at: Mapped[Moment]

    __table_args__ = (
        CheckConstraint("length(key) BETWEEN 1 AND 255", name="key"),
        Index("idempotency_keys_key", "key"),
    )


class Anchor(Base):
    """By what the database is recognised as the one that it was (`tasks.outbound.restores`); one row, written
    by the first dispatch. ``xid`` is the transaction that wrote it. ``behind`` set: it was put back."""

    __tablename__ = "anchor"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, server_default=text("1"))
    uid: Mapped[Uid]
    cluster: Mapped[str]
    timeline: Mapped[str]
    database: Mapped[str]
    xid: Mapped[str]
    behind: Mapped[str | None]
    created_at: Mapped[Moment]

    __table_args__ = (CheckConstraint("id = 1", name="only"),)
