"""Users, roles, ordered operation permissions, and the audit trail."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from schema.tables.base import Base, Key, Moment, Uid, one_of


class Operation(StrEnum):
    """System operations that a grant allows or denies."""

    MANAGE_ADMINISTRATION = "CanManageAdministration"
    MANAGE_MAILBOXES = "CanManageMailboxes"
    READ_MESSAGES = "CanReadMessages"
    SEND_MESSAGES = "CanSendMessages"
    VIEW_OPERATIONS = "CanViewOperations"


def a_name() -> CheckConstraint:
    """A check that ``name`` has 1 to 250 characters, none of them a control character."""
    return CheckConstraint(
        r"length(name) BETWEEN 1 AND 250 AND name !~ '[\u0001-\u001f\u007f-\u009f]'", name="name"
    )


class User(Base):
    __tablename__ = "users"

    id: Mapped[Key]
    uid: Mapped[Uid]
    name: Mapped[str]
    created_at: Mapped[Moment]

    __table_args__ = (a_name(),)


Index("users_name_key", func.lower(User.name), unique=True)


class Role(Base):
    __tablename__ = "roles"

    id: Mapped[Key]
    uid: Mapped[Uid]
    name: Mapped[str]
    created_at: Mapped[Moment]

    __table_args__ = (a_name(),)


Index("roles_name_key", func.lower(Role.name), unique=True)


class UserRole(Base):
    __tablename__ = "user_roles"

    user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    role_id: Mapped[int] = mapped_column(
        ForeignKey(Role.id, ondelete="CASCADE"), primary_key=True, index=True
    )


class OperationPermission(Base):
    """One line of the ordered list: the first line that matches a user and operation decides."""

    __tablename__ = "operation_permissions"

    id: Mapped[Key]
    uid: Mapped[Uid]
    position: Mapped[int]
    operation: Mapped[str]
    user_id: Mapped[int | None] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    role_id: Mapped[int | None] = mapped_column(ForeignKey(Role.id, ondelete="CASCADE"), index=True)
    allow: Mapped[bool]
    created_at: Mapped[Moment]

    __table_args__ = (
        one_of("operation", Operation),
        CheckConstraint("num_nonnulls(user_id, role_id) = 1", name="grantee"),
        UniqueConstraint("position", deferrable=True, initially="DEFERRED"),
    )


class Scope(StrEnum):
    """What an API key may be used for, within the rights of its user."""

    OUTBOX_READ = "outbox:read"
    OUTBOX_WRITE = "outbox:write"


class ApiKey(Base):
    """A key to the HTTP API. ``digest`` is the SHA-256 of the key, which itself is stored nowhere."""

    __tablename__ = "api_keys"

    id: Mapped[Key]
    uid: Mapped[Uid]
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), index=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    scopes: Mapped[list[str]]
    note: Mapped[str | None]
    created_at: Mapped[Moment]
    expires_at: Mapped[datetime | None]  # NULL: never
    last_used_at: Mapped[datetime | None]  # to the minute

    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        CheckConstraint("cardinality(scopes) > 0", name="scopes"),
    )


class AuditEntry(Base):
    """Who changed what, and when. ``changes`` maps a field to ``[before, after]``, secrets masked."""

    __tablename__ = "audit"

    id: Mapped[Key]
    at: Mapped[Moment] = mapped_column(index=True)
    actor: Mapped[str]
    action: Mapped[str]
    kind: Mapped[str]
    object_uid: Mapped[UUID | None]
    name: Mapped[str]
    changes: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
