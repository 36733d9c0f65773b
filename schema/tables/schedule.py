"""When each mailbox is looked at next, and who is at it now: narrow rows, updated in bulk."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, false, text
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import Base
from schema.tables.mailboxes import Mailbox


class Schedule(Base):
    """A mailbox's turn to be synced. The lease is (owner, token, until) by the database's clock;
    ``host`` and ``account`` stand here so that caps are counted without a join."""

    __tablename__ = "schedule"

    mailbox_id: Mapped[int] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"), primary_key=True)
    lane: Mapped[str] = mapped_column(server_default="sync")
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    provider_id: Mapped[int]
    host: Mapped[str]
    account: Mapped[str]
    next_poll_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    interval_seconds: Mapped[float] = mapped_column(server_default=text("30"))
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(server_default=text("0"))
    lease_until: Mapped[datetime | None]
    last_owner: Mapped[str | None]
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None]
    last_started_at: Mapped[datetime | None]
    last_synced_at: Mapped[datetime | None]
    last_failed_at: Mapped[datetime | None]
    crashes: Mapped[int] = mapped_column(server_default=text("0"))  # leases in a row that ended by expiry
    asked: Mapped[bool] = mapped_column(server_default=false())  # a person or a wake asked; tell when done

    __table_args__ = (
        Index("schedule_due", "provider_id", "lane", "next_poll_at", postgresql_where=text("enabled")),
        Index("schedule_leased", "host", postgresql_where=text("lease_until IS NOT NULL")),
        {"postgresql_with": {"fillfactor": "70"}},
    )


class Lease(Base):
    """A named singleton's lease, such as the relay's."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    token: Mapped[int]
    until: Mapped[datetime]


class Breaker(Base):
    """What went wrong lately with a host: faults in a row and, where there were too many, since when it is
    left alone and until when. A host that is well has no row, or one of zeros."""

    __tablename__ = "breakers"

    protocol: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(primary_key=True)
    faults: Mapped[int] = mapped_column(server_default=text("0"))
    trips: Mapped[int] = mapped_column(server_default=text("0"))  # pauses in a row
    opened_at: Mapped[datetime | None]
    retry_at: Mapped[datetime | None]  # from then on one probe at a time
    probe_until: Mapped[datetime | None]
    last_error: Mapped[str | None]
    slow_until: Mapped[datetime | None]  # it made us wait lately

    __table_args__ = (
        CheckConstraint("protocol IN ('imap', 'smtp')", name="protocol"),
        CheckConstraint("(opened_at IS NULL) = (retry_at IS NULL)", name="open"),
        {"postgresql_with": {"fillfactor": "70"}},
    )
