"""A provider's row as a value, and two of them side by side as the audit trail shows them."""

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any, Final

from schema.tables.providers import Authentication, LoginMode, Provider, Security, SentCopy
from tasks.access import MASKED
from tasks.providers.authority import count_certificates
from tasks.providers.logo import Logo
from tasks.providers.values import ProviderCard, ProviderDraft, Unset

FIELDS: Final = tuple(field.name for field in fields(ProviderCard))

_CHOICES: Final[Mapping[str, type[StrEnum]]] = {
    "imap_security": Security,
    "imap_authentication": Authentication,
    "smtp_security": Security,
    "smtp_authentication": Authentication,
    "login_mode": LoginMode,
    "sent_copy": SentCopy,
}


def card_of(row: Provider) -> ProviderCard:
    """The row as a value."""
    values: dict[str, Any] = {name: getattr(row, name) for name in FIELDS}
    for name, kind in _CHOICES.items():
        values[name] = kind(values[name])
    return ProviderCard(**values)


def shown(card: ProviderCard) -> dict[str, Any]:
    """The card as the audit trail shows it: a CA is told by its number of certificates."""
    values: dict[str, Any] = {name: getattr(card, name) for name in FIELDS}
    if card.ca is not None:
        values["ca"] = f"{count_certificates(card.ca)} certificates"
    return values


def differences(before: ProviderCard, after: ProviderCard) -> dict[str, tuple[Any, Any]]:
    """Each field that differs, before and after."""
    old, new = shown(before), shown(after)
    return {name: (old[name], new[name]) for name in FIELDS if getattr(before, name) != getattr(after, name)}


def kept_apart(
    draft: ProviderDraft, logo_before: str | None, logo: Logo | None, *, secret_before: bool
) -> dict[str, tuple[Any, Any]]:
    """Changes of logo and client secret, which are not on the card; the secret is masked."""
    changes: dict[str, tuple[Any, Any]] = {}
    if not isinstance(draft.logo, Unset):
        now = None if logo is None else f"{logo.type}, {len(logo.content)} bytes"
        if logo is not None or logo_before is not None:
            changes["logo"] = (logo_before, now)
    if not isinstance(draft.oauth_client_secret, Unset):
        pair = (MASKED if secret_before else None, MASKED if draft.oauth_client_secret else None)
        if pair != (None, None):
            changes["oauth_client_secret"] = pair
    return changes
