"""Writing mailboxes and their sealed passwords."""

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from config.errors import Conflict
from schema.ids import uuid7
from schema.tables.mailboxes import Mailbox, MailboxSecret
from tasks import access
from tasks.access import Actor
from tasks.mailboxes import seals
from tasks.mailboxes.lanes import refresh_lanes
from tasks.mailboxes.plan import Plan, aware
from tasks.mailboxes.values import NewMailbox
from tasks.secrets import KeyRing


def insert_mailbox(actor: Actor, session: Session, keyring: KeyRing, new: NewMailbox, plan: Plan) -> Mailbox:
    """Store a planned mailbox, its secret and its lanes, and audit it. Raises `Conflict`."""
    mailbox = Mailbox(
        uid=uuid7(),
        address=plan.address,
        address_key=plan.address_key,
        provider_id=plan.provider.id,
        login=plan.login,
        owner_id=plan.owner_id,
        display_name=new.display_name,
        receive=new.receive,
        send=new.send,
        folders=None if new.folders is None else list(new.folders),
        history_days=new.history_days,
        notify_from=aware(new.notify_from),
        poll_seconds=new.poll_seconds,
        keep=new.keep.value,
        send_as=list(plan.send_as),
    )
    session.add(mailbox)
    try:
        session.flush()
    except IntegrityError as error:
        raise Conflict(f"the mailbox {plan.address} was added by someone else meanwhile.") from error
    if new.password is not None:
        store_secret(session, keyring, mailbox.id, mailbox.uid, new.password, plan.route)
    refresh_lanes(session, mailbox.id)
    after = {
        "provider": plan.provider.name,
        "login": plan.login,
        "password": None if new.password is None else access.MASKED,
        "receive": new.receive,
        "send": new.send,
    } | ({"owner": new.owner} if new.owner else {})
    audit(session, actor, "mailbox.added", mailbox, {name: (None, value) for name, value in after.items()})
    return mailbox


def store_secret(
    session: Session, keyring: KeyRing, mailbox_id: int, uid: UUID, password: str, route: str
) -> None:
    """Seal a password for a route and store it in place of the one before."""
    seals.hold_ring(session)
    sealed = seals.seal(keyring, uid, password, route)
    row = {"key_id": sealed.key_id, "nonce": sealed.nonce, "sealed": sealed.sealed, "route": route}
    statement = insert(MailboxSecret).values(mailbox_id=mailbox_id, **row)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=[MailboxSecret.mailbox_id], set_=row | {"updated_at": text("now()")}
        )
    )


def audit(
    session: Session, actor: Actor, action: str, mailbox: Mailbox, changes: dict[str, tuple[Any, Any]]
) -> None:
    """One line in the audit trail about a mailbox."""
    access.audit(session, actor, action, "mailbox", mailbox.uid, mailbox.address, changes)
