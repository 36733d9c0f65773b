"""Finding mailboxes."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from config.errors import NotFound
from schema.tables.access import User
from schema.tables.mailboxes import Mailbox
from schema.tables.providers import Provider
from tasks import access, providers
from tasks.access import Actor, Operation


def find(session: Session, address: str) -> Mailbox | None:
    """The mailbox with this address, or None. Raises `UserError` where it is no address."""
    key = providers.split_address(address).key
    return session.execute(select(Mailbox).where(Mailbox.address_key == key)).scalar_one_or_none()


def get(session: Session, address: str) -> Mailbox:
    """The mailbox with this address. Raises `NotFound`, or `UserError` where it is no address."""
    mailbox = find(session, address)
    if mailbox is None:
        raise NotFound(f"there is no mailbox {address}. See `mailwright mailbox list`.")
    return mailbox


def listing(
    actor: Actor, session: Session, *, provider: str | None = None, state: str | None = None
) -> Sequence[tuple[Mailbox, Provider, str | None]]:
    """Mailboxes with provider and owner's name, by address: all for who holds CanManageMailboxes,
    else one's own."""
    query = (
        select(Mailbox, Provider, User.name)
        .join(Provider, Provider.id == Mailbox.provider_id)
        .outerjoin(User, User.id == Mailbox.owner_id)
        .order_by(Mailbox.address_key)
    )
    if not access.allowed(session, actor, Operation.MANAGE_MAILBOXES):
        mine = access.user_id(session, actor)
        owned = (
            mine is not None and session.execute(select(Mailbox.id).where(Mailbox.owner_id == mine)).first()
        )
        if not owned:
            access.require(session, actor, Operation.MANAGE_MAILBOXES, "list mailboxes")
        query = query.where(Mailbox.owner_id == mine)
    if provider is not None:
        query = query.where(Mailbox.provider_id == providers.get(session, provider).id)
    if state is not None:
        query = query.where(Mailbox.state == state)
    return [(row[0], row[1], row[2]) for row in session.execute(query)]
