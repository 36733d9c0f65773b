"""Who may read, change and send a mailbox: who holds the operation, and the owner."""

from sqlalchemy.orm import Session

from schema.tables.access import Operation
from schema.tables.mailboxes import Mailbox
from tasks import access
from tasks.access import Actor


def may_send(session: Session, actor: Actor, mailbox: Mailbox) -> bool:
    """Whether ``actor`` may send as ``mailbox``: CanSendMessages, or being its owner."""
    return _owns(session, actor, mailbox) or access.allowed(session, actor, Operation.SEND_MESSAGES)


def may_read(session: Session, actor: Actor, mailbox: Mailbox) -> bool:
    """Whether ``actor`` may read ``mailbox``: CanReadMessages, or being its owner."""
    return _owns(session, actor, mailbox) or access.allowed(session, actor, Operation.READ_MESSAGES)


def require_send(session: Session, actor: Actor, mailbox: Mailbox) -> None:
    """Raises `PermissionDenied` where `may_send` is false."""
    if not _owns(session, actor, mailbox):
        access.require(session, actor, Operation.SEND_MESSAGES, f"send as {mailbox.address}")


def require_read(session: Session, actor: Actor, mailbox: Mailbox) -> None:
    """Raises `PermissionDenied` where `may_read` is false."""
    if not _owns(session, actor, mailbox):
        access.require(session, actor, Operation.READ_MESSAGES, f"read {mailbox.address}")


def require_change(session: Session, actor: Actor, mailbox: Mailbox) -> None:
    """Who may change what lies in ``mailbox``: CanManageMailboxes, or being its owner. Raises
    `PermissionDenied`."""
    if not _owns(session, actor, mailbox):
        access.require(session, actor, Operation.MANAGE_MAILBOXES, f"change the mail of {mailbox.address}")


def _owns(session: Session, actor: Actor, mailbox: Mailbox) -> bool:
    if actor.system:
        return True
    return mailbox.owner_id is not None and mailbox.owner_id == access.user_id(session, actor)
