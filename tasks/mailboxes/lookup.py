"""Finding mailboxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.orm import Session

from config.errors import NotFound
from schema.tables.access import User
from schema.tables.mailboxes import Mailbox, MailboxToken
from schema.tables.providers import Authentication, Provider
from tasks import access, providers
from tasks.access import Actor, Operation

CONSENT_NEEDED: Final = and_(
    or_(
        and_(Mailbox.receive, Provider.receive, Provider.imap_authentication == Authentication.OAUTH2),
        and_(Mailbox.send, Provider.send, Provider.smtp_authentication == Authentication.OAUTH2),
    ),
    ~exists().where(MailboxToken.mailbox_id == Mailbox.id),
)
"""Of a mailbox and its provider: it logs in by OAuth 2.0, and nobody consented yet."""


_LISTED: Final = (
    select(Mailbox, Provider, User.name, CONSENT_NEEDED)
    .join(Provider, Provider.id == Mailbox.provider_id)
    .outerjoin(User, User.id == Mailbox.owner_id)
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A mailbox with its provider and its owner's name. ``consent_needed``: it cannot log in before
    ``mailbox authorize``."""

    mailbox: Mailbox
    provider: Provider
    owner: str | None
    consent_needed: bool


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
) -> Sequence[Listed]:
    """Mailboxes by address: all for who holds CanManageMailboxes,
    else one's own."""
    query = _LISTED.order_by(Mailbox.address_key)
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
    return [Listed(*row) for row in session.execute(query)]


def listed(session: Session, mailbox: Mailbox) -> Listed:
    """One mailbox as `listing` gives it."""
    return Listed(*session.execute(_LISTED.where(Mailbox.id == mailbox.id)).one())
