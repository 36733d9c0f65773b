"""Facts on their way out: written with the fact, then copied into the log with a position."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import Base


class PendingEvent(Base):
    """An event committed with its fact and not yet in the log."""

    __tablename__ = "events_pending"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    uid: Mapped[UUID] = mapped_column(Uuid, server_default=text("mailwright.uuid7()"))
    type: Mapped[str]
    mailbox_id: Mapped[int | None]
    subject: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    correlation: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))


class Event(Base):
    """The log that every sink and reader follows by ``position``, which has no gaps."""

    __tablename__ = "events"

    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    uid: Mapped[UUID] = mapped_column(Uuid, unique=True)
    type: Mapped[str]
    mailbox_id: Mapped[int | None]
    subject: Mapped[str]
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    correlation: Mapped[str | None]
    at: Mapped[datetime]

    __table_args__ = (Index("events_mailbox", "mailbox_id", "position"),)


class Sink(Base):
    """How far each sink has been fed."""

    __tablename__ = "sinks"

    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(server_default=text("0"))
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]
    updated_at: Mapped[datetime | None]
