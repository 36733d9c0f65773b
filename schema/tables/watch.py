"""Who holds an open session on which mailbox to hear of news at once."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import Base, Moment
from schema.tables.mailboxes import Mailbox


class Watcher(Base):
    """A watcher process. It lives until ``until`` by the database's clock and renews that one row for all
    its mailboxes; what a dead one watched is free."""

    __tablename__ = "watchers"

    owner: Mapped[str] = mapped_column(primary_key=True)
    until: Mapped[datetime]
    sessions: Mapped[int] = mapped_column(server_default=text("0"))
    most: Mapped[int]  # sessions it can hold
    started_at: Mapped[Moment]

    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)


class Watch(Base):
    """A mailbox to watch: by ``watcher``, or free and to be tried from ``retry_at`` on. ``connected_at`` is
    set while a session waits for news; ``account`` is the login and host it counts against."""

    __tablename__ = "watches"

    mailbox_id: Mapped[int] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"), primary_key=True)
    watcher: Mapped[str | None]
    account: Mapped[str]
    retry_at: Mapped[Moment]
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    connected_at: Mapped[datetime | None]
    last_error: Mapped[str | None]

    __table_args__ = (
        Index("watches_free", "retry_at", postgresql_where=text("watcher IS NULL")),
        Index("watches_watcher", "watcher", postgresql_where=text("watcher IS NOT NULL")),
        Index("watches_account", "account", postgresql_where=text("watcher IS NOT NULL")),
    )
