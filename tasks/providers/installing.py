"""Installing catalogue entries: safe to repeat; what is taken elsewhere is told and skipped."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from config.errors import Conflict
from schema.tables.access import Operation
from tasks.access import Actor, require
from tasks.providers.catalogue import Entry
from tasks.providers.domains import attach_domain
from tasks.providers.engine import add, list_providers


@dataclass(frozen=True, slots=True)
class Installed:
    """What became of one entry: ``added`` False means that a provider of that name was there and
    is left as it is. ``skipped`` are domains that another provider has, each with why."""

    name: str
    added: bool
    domains: tuple[str, ...]
    skipped: tuple[str, ...]


def install(actor: Actor, session: Session, chosen: list[Entry]) -> list[Installed]:
    """Add a provider for each entry that has none of its name yet, with those of its domains that
    are free."""
    require(session, actor, Operation.MANAGE_ADMINISTRATION, "install from the catalogue")
    there = {row.name.lower() for row in list_providers(actor, session)}
    return [
        Installed(entry.name, False, (), ())
        if entry.name.lower() in there
        else _install(actor, session, entry)
        for entry in chosen
    ]


def _install(actor: Actor, session: Session, entry: Entry) -> Installed:
    provider = add(actor, session, entry.draft)
    attached, skipped = [], []
    for domain in entry.domains:
        try:
            attach_domain(actor, session, domain, provider)
        except Conflict as taken:
            skipped.append(str(taken))
        else:
            attached.append(domain)
    return Installed(entry.name, True, tuple(attached), tuple(skipped))
