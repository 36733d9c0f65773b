"""What lies in each mailbox: folders, epochs, messages, their places, raw bytes, threads."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, Sequence, text
from sqlalchemy.dialects.postgresql import ARRAY, INT8MULTIRANGE, JSONB, TEXT, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import METADATA, SCHEMA, Base, Key, Moment, Uid, one_of
from schema.tables.mailboxes import Mailbox

THREADS = Sequence("threads", metadata=METADATA, schema=SCHEMA)


class EpochState(StrEnum):
    BUILDING = "building"
    CURRENT = "current"
    RETIRED = "retired"


class MessageState(StrEnum):
    PRESENT = "present"
    MISSING = "missing"
    DELETED = "deleted"


class Folder(Base):
    """``wire_name`` is the name as the server writes it; ``name`` is for people; ``object_id`` is its
    MAILBOXID (RFC 8474), where the server tells one."""

    __tablename__ = "folders"

    id: Mapped[Key]
    uid: Mapped[Uid]
    mailbox_id: Mapped[int] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"))
    wire_name: Mapped[bytes] = mapped_column(LargeBinary)
    name: Mapped[str]
    delimiter: Mapped[str | None]
    object_id: Mapped[str | None]
    special_use: Mapped[str | None]
    attributes: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    selectable: Mapped[bool]
    followed: Mapped[bool]
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    retry_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    resets: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[Moment]
    gone_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "folders_present_key",
            "mailbox_id",
            "wire_name",
            unique=True,
            postgresql_where=text("gone_at IS NULL"),
        ),
    )


class FolderEpoch(Base):
    """One life of a folder under one UIDVALIDITY, and the sync cursor in it.

    ``uids`` is the set of UIDs that are stored or stubbed; ``modseq`` the HIGHESTMODSEQ at the
    SELECT that opened the last complete pass.
    """

    __tablename__ = "folder_epochs"

    id: Mapped[Key]
    mailbox_id: Mapped[int] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"), index=True)
    folder_id: Mapped[int] = mapped_column(ForeignKey(Folder.id, ondelete="CASCADE"), index=True)
    state: Mapped[str]
    uidvalidity: Mapped[int]
    uids: Mapped[Any] = mapped_column(INT8MULTIRANGE, server_default=text("'{}'"))
    modseq: Mapped[int | None]
    uidnext: Mapped[int | None]
    messages: Mapped[int] = mapped_column(server_default=text("0"))  # the server's count at the last look
    flags_checked_at: Mapped[datetime | None]  # the newest 200
    compared_at: Mapped[datetime | None]  # all
    modseq_before: Mapped[int | None]  # of the pass before, where passes overlap (Gmail)
    doubted_at: Mapped[datetime | None]  # when the server's MODSEQs could not be
    history_below: Mapped[int] = mapped_column(server_default=text("1"))  # UIDs that were there at first
    created_at: Mapped[Moment]

    __table_args__ = (
        one_of("state", EpochState),
        Index(
            "folder_epochs_current_key", "folder_id", unique=True, postgresql_where=text("state = 'current'")
        ),
        Index(
            "folder_epochs_building_key",
            "folder_id",
            unique=True,
            postgresql_where=text("state = 'building'"),
        ),
    )


class Message(Base):
    """A mailbox's copy of one mail. ``digest`` is SHA-256 of its bytes (of its header where only
    that is kept). Several messages may share a digest: true duplicates exist. ``email_id`` is EMAILID
    (RFC 8474) or X-GM-MSGID, where the server told one."""

    __tablename__ = "messages"

    id: Mapped[Key]
    uid: Mapped[Uid]
    mailbox_id: Mapped[int] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(server_default=MessageState.PRESENT)
    missing_since: Mapped[datetime | None]
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    size: Mapped[int]
    internal_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    message_id: Mapped[str | None]
    in_reply_to: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    subject: Mapped[str] = mapped_column(server_default="")
    addresses: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    headers: Mapped[Any] = mapped_column(JSONB, server_default=text("'[]'"))
    body_text: Mapped[str | None]
    body_html: Mapped[str | None]
    content_type: Mapped[str | None]
    auto_submitted: Mapped[str | None]
    list_id: Mapped[str | None]
    thread_id: Mapped[int | None] = mapped_column(BigInteger)
    thread_subject: Mapped[str] = mapped_column(server_default="")
    defects: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    announced: Mapped[bool]
    outbound_uid: Mapped[UUID | None]
    email_id: Mapped[str | None]
    stored_at: Mapped[Moment]

    __table_args__ = (
        one_of("state", MessageState),
        Index("messages_digest", "mailbox_id", "digest"),
        Index("messages_message_id", "mailbox_id", "message_id"),
        Index("messages_email_id", "mailbox_id", "email_id", postgresql_where=text("email_id IS NOT NULL")),
        Index("messages_newest", "mailbox_id", "internal_at", "id"),
        Index("messages_thread", "mailbox_id", "thread_id"),
        Index("messages_thread_subject", "mailbox_id", "thread_subject", "sent_at"),
        Index("messages_missing", "mailbox_id", postgresql_where=text("state = 'missing'")),
    )


class Place(Base):
    """Where a message lies: (folder epoch, UID). ``message_id`` is NULL for a stub, whose ``stub``
    says why there is no message; a stub is stored for the cursor's sake and never announced."""

    __tablename__ = "places"

    epoch_id: Mapped[int] = mapped_column(ForeignKey(FolderEpoch.id, ondelete="CASCADE"), primary_key=True)
    imap_uid: Mapped[int] = mapped_column(primary_key=True)
    mailbox_id: Mapped[int]
    message_id: Mapped[int | None] = mapped_column(ForeignKey(Message.id, ondelete="CASCADE"), index=True)
    flags: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    modseq: Mapped[int | None]
    stub: Mapped[str | None]

    __table_args__ = (Index("places_stubs", "mailbox_id", postgresql_where=text("stub IS NOT NULL")),)


class RawMessage(Base):
    """The bytes of a message as fetched. The column's storage is EXTERNAL: no compression."""

    __tablename__ = "raw_messages"

    message_id: Mapped[int] = mapped_column(ForeignKey(Message.id, ondelete="CASCADE"), primary_key=True)
    mailbox_id: Mapped[int]
    raw: Mapped[bytes] = mapped_column(LargeBinary)


class Attachment(Base):
    """A view of the raw bytes: part path, name, type, decoded size, digest of the decoded bytes."""

    __tablename__ = "attachments"

    message_id: Mapped[int] = mapped_column(ForeignKey(Message.id, ondelete="CASCADE"), primary_key=True)
    part: Mapped[str] = mapped_column(primary_key=True)
    mailbox_id: Mapped[int]
    name: Mapped[str | None]
    content_type: Mapped[str]
    size: Mapped[int]
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    content_id: Mapped[str | None]
    disposition: Mapped[str]


class ReportKind(StrEnum):
    DELIVERY = "delivery"
    COMPLAINT = "complaint"


class Report(Base):
    """What a message reports of one that was sent earlier (RFC 3464, RFC 5965). ``recipients``: a list
    of address, original, action, status, diagnostic. ``settled_at``: what was sent has heard of it."""

    __tablename__ = "reports"

    message_id: Mapped[int] = mapped_column(ForeignKey(Message.id, ondelete="CASCADE"), primary_key=True)
    mailbox_id: Mapped[int]
    kind: Mapped[str]
    envelope_id: Mapped[str | None]
    original_message_id: Mapped[str | None]
    attempt: Mapped[str | None]
    recipients: Mapped[Any] = mapped_column(JSONB)
    settled_at: Mapped[datetime | None]

    __table_args__ = (
        one_of("kind", ReportKind),
        Index("reports_unsettled", "message_id", postgresql_where=text("settled_at IS NULL")),
    )


class Indexed(Base):
    """The words of a message by which it is found, and when it arrived."""

    __tablename__ = "message_search"

    message_id: Mapped[int] = mapped_column(ForeignKey(Message.id, ondelete="CASCADE"), primary_key=True)
    mailbox_id: Mapped[int]
    at: Mapped[datetime | None]
    words: Mapped[Any] = mapped_column(TSVECTOR)

    __table_args__ = (Index("message_search_words", "words", postgresql_using="gin"),)


class SearchBacklog(Base):
    """Messages that were stored and are not indexed yet, up to 50 in a row."""

    __tablename__ = "search_backlog"

    id: Mapped[Key]
    mailbox_id: Mapped[int] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"), index=True)
    message_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    due_at: Mapped[Moment]
    tries: Mapped[int] = mapped_column(server_default=text("0"))

    __table_args__ = (Index("search_backlog_due", "due_at"),)


class Reference(Base):
    """Which thread a Message-ID belongs to, seen or only referred to."""

    __tablename__ = "message_references"

    mailbox_id: Mapped[int] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"), primary_key=True)
    message_id: Mapped[str] = mapped_column(primary_key=True)
    thread_id: Mapped[int]

    __table_args__ = (Index("message_references_thread", "mailbox_id", "thread_id"),)


class FetchFailure(Base):
    """How often a UID could not be stored, counted before each try, so that a message that kills
    its worker is quarantined after three."""

    __tablename__ = "fetch_failures"

    epoch_id: Mapped[int] = mapped_column(ForeignKey(FolderEpoch.id, ondelete="CASCADE"), primary_key=True)
    imap_uid: Mapped[int] = mapped_column(primary_key=True)
    tries: Mapped[int]
    reason: Mapped[str]


class CommandKind(StrEnum):
    APPEND_SENT = "append_sent"
    APPEND = "append"
    MARK = "mark"
    MOVE = "move"
    COPY = "copy"
    DELETE = "delete"
    SEEK_SENT = "seek_sent"


class CommandState(StrEnum):
    QUEUED = "queued"
    TOLD = "told"
    DONE = "done"
    FAILED = "failed"
    VOID = "void"


class Command(Base):
    """A change that flows back to the server under the mailbox's lease.

    It names a message and the folder it lay in when it was wished for (``folder_id``); the UID is
    looked up when it runs. ``sent_at``: the server may have got it, and has not refused it. ``told``:
    the server said OK, and what it shows is waited for.
    """

    __tablename__ = "commands"

    id: Mapped[Key]
    uid: Mapped[Uid]
    mailbox_id: Mapped[int] = mapped_column(ForeignKey(Mailbox.id, ondelete="CASCADE"))
    kind: Mapped[str]
    outbound_id: Mapped[int | None]
    message_id: Mapped[int | None] = mapped_column(ForeignKey(Message.id, ondelete="CASCADE"))
    folder_id: Mapped[int | None]
    target_id: Mapped[int | None]  # the folder to put it into
    add_flags: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    remove_flags: Mapped[list[str]] = mapped_column(ARRAY(TEXT), server_default=text("'{}'"))
    content: Mapped[bytes | None] = mapped_column(LargeBinary)  # of an append; NULL once it ended
    requested_by: Mapped[str | None]
    state: Mapped[str] = mapped_column(server_default=CommandState.QUEUED)
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    due_at: Mapped[Moment]
    sent_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    created_at: Mapped[Moment]

    __table_args__ = (
        one_of("kind", CommandKind),
        one_of("state", CommandState),
        Index("commands_due", "mailbox_id", "due_at", postgresql_where=text("state IN ('queued', 'told')")),
        Index("commands_message", "message_id", postgresql_where=text("message_id IS NOT NULL")),
        Index("commands_outbound_key", "kind", "outbound_id", unique=True),
    )
