"""The lookup domain → provider, which lets a mailbox find its provider from its address alone."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session

from config.errors import Conflict, NotFound
from schema.tables.access import Operation
from schema.tables.providers import Provider
from tasks.access import Actor, audit, quoted, require, require_any, shell_word, storable
from tasks.events import NewEvent, record
from tasks.providers import queries
from tasks.providers.catalogue import entry_for_domain
from tasks.providers.names import normalise_domain, split_address

_ADMINISTER = Operation.MANAGE_ADMINISTRATION


def attach_domain(actor: Actor, session: Session, domain: str, provider: Provider) -> tuple[str, bool]:
    """Say that ``provider`` serves ``domain``; its stored form, and False where it did already.

    Raises `Conflict` naming the provider that has it, `UserError` for what is no domain.
    """
    require(session, actor, _ADMINISTER, "add a domain")
    label = normalise_domain(domain)
    if session.execute(queries.INSERT_DOMAIN, {"domain": label, "id": provider.id}).first() is None:
        owner = session.execute(queries.OWNER_OF_DOMAIN, {"domain": label}).one_or_none()
        if owner is not None and owner.id == provider.id:
            return label, False
        holder = "another provider" if owner is None else f"provider {quoted(owner.name)}"
        raise Conflict(
            f"the domain {label} belongs to {holder} already. "
            f"Take it from there first: mailwright domain remove {label}"
        )
    audit(session, actor, "domain.added", "provider", provider.uid, provider.name, {"domain": (None, label)})
    _tell(session, provider, "domain_added")
    return label, True


def remove_domain(actor: Actor, session: Session, domain: str) -> tuple[str, str]:
    """Take a domain from its provider; mailboxes that were recognised by it stay. Returns the domain
    and the provider's name. Raises `NotFound`."""
    require(session, actor, _ADMINISTER, "remove a domain")
    label = normalise_domain(domain)
    gone = session.execute(queries.DELETE_DOMAIN, {"domain": label}).one_or_none()
    if gone is None:
        raise NotFound(f"the domain {label} belongs to no provider. List them: mailwright domain list")
    provider = session.get_one(Provider, gone.provider_id)
    audit(
        session, actor, "domain.removed", "provider", provider.uid, provider.name, {"domain": (label, None)}
    )
    _tell(session, provider, "domain_removed")
    return label, provider.name


def list_domains(actor: Actor, session: Session, provider: str | None = None) -> Sequence[Row[Any]]:
    """Rows of uid, domain, provider, created_at, by domain; of one provider where named."""
    require_any(session, actor, (Operation.MANAGE_ADMINISTRATION, Operation.MANAGE_MAILBOXES), "list domains")
    if provider is not None and not storable(provider):
        return []
    return session.execute(queries.DOMAINS, {"provider": provider}).all()


def provider_for_address(session: Session, address: str) -> Provider:
    """The provider that serves an address's domain, disabled or not.

    Raises `UserError` for what is no address, `NotFound` listing the ways on where no provider does.
    """
    domain = split_address(address).domain
    owner = session.execute(queries.OWNER_OF_DOMAIN, {"domain": domain}).one_or_none()
    if owner is None:
        known = entry_for_domain(domain)
        ways = [
            f"add its domain (mailwright domain add {domain} --provider NAME)",
            "or name one: --provider NAME",
        ]
        if known is not None:
            install = f"mailwright provider catalogue install {shell_word(known.name)}"
            ways.insert(0, f"install it from the catalogue ({install})")
        way = " ".join([", ".join(ways[:-1]), ways[-1]])
        raise NotFound(f"no provider handles {quoted(address)}.\n{way[0].upper()}{way[1:]}.")
    return session.get_one(Provider, owner.id)


def _tell(session: Session, provider: Provider, action: str) -> None:
    data = {"name": provider.name, "action": action, "changed": ["domains"]}
    record(session, [NewEvent("provider.changed", None, str(provider.uid), data)])
