"""Well-known mail services, ready to install. The list itself is ``catalogue.json``."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from config.errors import NotFound
from tasks.access import quoted
from tasks.providers.values import ProviderDraft


@dataclass(frozen=True, slots=True)
class Entry:
    """One service: how to talk to it, the domains it serves, and what its users must know."""

    name: str
    draft: ProviderDraft
    domains: tuple[str, ...]
    note: str


@cache
def entries() -> tuple[Entry, ...]:
    """The catalogue, by name."""
    rows: list[dict[str, Any]] = json.loads(
        (Path(__file__).parent / "catalogue.json").read_text(encoding="utf-8")
    )
    return tuple(
        Entry(
            name=row["name"],
            draft=ProviderDraft(name=row["name"], **row["card"]),
            domains=tuple(row["domains"]),
            note=row["note"],
        )
        for row in sorted(rows, key=lambda row: str(row["name"]).lower())
    )


def entry(name: str) -> Entry:
    """An entry by name, in any case of letters. Raises `NotFound`."""
    for found in entries():
        if found.name.lower() == name.strip().lower():
            return found
    raise NotFound(
        f"the catalogue has no {quoted(name)}. It has {', '.join(each.name for each in entries())}."
    )


def entry_for_domain(domain: str) -> Entry | None:
    """The entry that serves a domain, given as lower-case A-label."""
    return _by_domain().get(domain)


@cache
def _by_domain() -> dict[str, Entry]:
    return {domain: found for found in entries() for domain in found.domains}
