"""Providers: add, edit, disable, enable, remove, look up. Every change is audited and told as
``provider.changed``, in one transaction."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Row, delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, undefer

from config.errors import Conflict, NotFound, UserError
from schema.ids import uuid7
from schema.tables.access import Operation
from schema.tables.providers import Provider
from tasks import schedule
from tasks.access import Actor, audit, quoted, require, require_any, shell_word, storable
from tasks.events import NewEvent, record
from tasks.providers import queries
from tasks.providers.changes import FIELDS, card_of, differences, kept_apart, shown
from tasks.providers.domains import attach_domain
from tasks.providers.logo import Logo, check_logo
from tasks.providers.rules import complete, needs_confirmation
from tasks.providers.sealing import seal_client_secret
from tasks.providers.values import Fault, InvalidProvider, ProviderCard, ProviderDraft, Unset
from tasks.secrets import KeyRing

_ADMINISTER = Operation.MANAGE_ADMINISTRATION
_LANE_FIELDS = (
    "receive", "imap_host", "imap_security", "imap_authentication",
    "send", "smtp_host", "smtp_security", "smtp_authentication",
)  # fmt: skip
_READ = (Operation.MANAGE_ADMINISTRATION, Operation.MANAGE_MAILBOXES)


def add(
    actor: Actor,
    session: Session,
    draft: ProviderDraft,
    domains: Sequence[str] = (),
    keyring: KeyRing | None = None,
) -> Provider:
    """Add a provider and the domains it serves, all or nothing. ``keyring`` is needed where the draft
    has an OAuth client secret.

    Raises `InvalidProvider` with every fault, `Conflict` for a taken name or domain.
    """
    require(session, actor, _ADMINISTER, "add a provider")
    card, logo = _checked(draft, None)
    row = Provider(uid=uuid7())
    _write(row, card)
    _write_logo(row, draft, logo)
    _write_secret(row, draft, keyring)
    session.add(row)
    _flush(session, row)
    changes = {name: (None, value) for name, value in shown(card).items() if value is not None}
    changes |= kept_apart(draft, None, logo, secret_before=False)
    audit(session, actor, "provider.added", "provider", row.uid, row.name, changes)
    _tell(session, row, "added", list(changes))
    for domain in domains:
        attach_domain(actor, session, domain, row)
    return row


def edit(
    actor: Actor, session: Session, name: str, draft: ProviderDraft, keyring: KeyRing | None = None
) -> tuple[Provider, list[str]]:
    """Change what ``draft`` names; the provider and the addresses that now wait for a confirmation,
    because a password of theirs would go to a new host or less protected.

    Raises `NotFound`, `InvalidProvider`, `Conflict` for a taken name.
    """
    require(session, actor, _ADMINISTER, "edit a provider")
    row = lock(session, name)
    before = card_of(row)
    logo_before = None if row.logo_type is None else f"{row.logo_type}, {len(row.logo or b'')} bytes"
    secret_before = row.oauth_client_secret is not None
    card, logo = _checked(draft, before)
    changes = differences(before, card) | kept_apart(draft, logo_before, logo, secret_before=secret_before)
    if not changes:
        return row, []
    now = session.scalar(select(func.now()))
    _write(row, card)
    _write_logo(row, draft, logo)
    _write_secret(row, draft, keyring)
    row.updated_at = now
    _flush(session, row)
    audit(session, actor, "provider.edited", "provider", row.uid, row.name, changes)
    _tell(session, row, "edited", list(changes))
    schedule.forget(session, [before.imap_host, before.smtp_host, card.imap_host, card.smtp_host])
    return row, _follow(actor, session, row, before, card)


def add_domain(actor: Actor, session: Session, domain: str, provider: str) -> tuple[Provider, str, bool]:
    """Say that a provider serves ``domain``; the provider, the domain's stored form, and False where
    it did already. Raises `NotFound`, `UserError`, `Conflict` naming the provider that has it."""
    require(session, actor, _ADMINISTER, "add a domain")
    row = get(session, provider)
    return row, *attach_domain(actor, session, domain, row)


def disable(actor: Actor, session: Session, name: str) -> Provider:
    """Stop all use of a provider from the next connection on; its mailboxes stay as they are."""
    return _switch(actor, session, name, disabled=True)


def enable(actor: Actor, session: Session, name: str) -> Provider:
    """Take a provider into use again."""
    return _switch(actor, session, name, disabled=False)


def remove(actor: Actor, session: Session, name: str) -> Provider:
    """Remove a provider and its domains. Raises `Conflict` while mailboxes use it."""
    require(session, actor, _ADMINISTER, "remove a provider")
    row = lock(session, name)
    used: int = session.execute(queries.COUNT_MAILBOXES, {"id": row.id}).scalar_one()
    if used:
        raise _in_use(row.name, f"{used} mailbox{'es use' if used > 1 else ' uses'} it")
    domains = list(session.execute(queries.DOMAINS_OF, {"id": row.id}).scalars())
    session.execute(queries.DELETE_DOMAINS_OF, {"id": row.id})
    try:
        session.execute(delete(Provider).where(Provider.id == row.id))
    except IntegrityError:
        raise _in_use(row.name, "a mailbox was added just now") from None
    changes = {field: (value, None) for field, value in shown(card_of(row)).items() if value is not None}
    changes["domains"] = (domains, None)
    audit(session, actor, "provider.removed", "provider", row.uid, row.name, changes)
    _tell(session, row, "removed", [])
    return row


def get(session: Session, name: str) -> Provider:
    """A provider by name, in any case of letters. Raises `NotFound`."""
    found: Provider | None = None
    if storable(name):
        found = session.scalars(
            select(Provider).where(func.lower(Provider.name) == func.lower(name.strip()))
        ).one_or_none()
    if found is None:
        raise _unknown(name)
    return found


def list_providers(actor: Actor, session: Session) -> Sequence[Row[Any]]:
    """Rows of the card's main fields, ``domains`` and the number of ``mailboxes``, by name."""
    require_any(session, actor, _READ, "list providers")
    return session.execute(queries.ROWS).all()


def show(actor: Actor, session: Session, name: str) -> tuple[Provider, list[str], int]:
    """A provider, its domains, and how many mailboxes use it."""
    require_any(session, actor, _READ, "see a provider")
    row = get(session, name)
    domains = list(session.execute(queries.DOMAINS_OF, {"id": row.id}).scalars())
    return row, domains, session.execute(queries.COUNT_MAILBOXES, {"id": row.id}).scalar_one()


def logo_of(actor: Actor, session: Session, name: str) -> Logo:
    """The logo as it was given. Whoever serves it must forbid scripts. Raises `NotFound` for none."""
    require_any(session, actor, _READ, "see a provider")
    row = get(session, name)
    content = session.scalar(select(Provider.logo).where(Provider.id == row.id))
    if content is None or row.logo_type is None:
        raise NotFound(
            f"provider {quoted(row.name)} has no logo. "
            f"Give it one: mailwright provider edit {shell_word(row.name)} --logo FILE"
        )
    return Logo(content, row.logo_type)


def _checked(draft: ProviderDraft, before: ProviderCard | None) -> tuple[ProviderCard, Logo | None]:
    """The card and the logo given, or all faults of both."""
    faults: list[Fault] = []
    logo: Logo | None = None
    if not isinstance(draft.logo, Unset) and draft.logo is not None:
        try:
            logo = check_logo(draft.logo)
        except UserError as error:
            faults.append(Fault("logo", str(error).removesuffix(".")))
    try:
        card = complete(draft, before)
    except InvalidProvider as error:
        raise InvalidProvider([*error.faults, *faults]) from None
    if faults:
        raise InvalidProvider(faults)
    return card, logo


def _write(row: Provider, card: ProviderCard) -> None:
    for name in FIELDS:
        setattr(row, name, getattr(card, name))


def _write_logo(row: Provider, draft: ProviderDraft, logo: Logo | None) -> None:
    if not isinstance(draft.logo, Unset):
        row.logo, row.logo_type = (None, None) if logo is None else (logo.content, logo.type)


def _write_secret(row: Provider, draft: ProviderDraft, keyring: KeyRing | None) -> None:
    secret = draft.oauth_client_secret
    if isinstance(secret, Unset):
        return
    if not secret:
        row.oauth_client_secret = None
        return
    if keyring is None:
        raise UserError("an OAuth client secret is sealed by the key ring, and none is at hand.")
    row.oauth_client_secret = seal_client_secret(keyring, row.uid, secret)


def _follow(
    actor: Actor, session: Session, row: Provider, before: ProviderCard, card: ProviderCard
) -> list[str]:
    """Hold passwords back until someone confirms a new place, and take the mailboxes' lanes along."""
    waiting = (
        session.execute(queries.AWAIT_CONFIRMATION, {"id": row.id}).all()
        if needs_confirmation(before, card)
        else []
    )
    for mailbox in waiting:
        held = {"awaiting_confirmation": (False, True)}
        audit(session, actor, "mailbox.awaiting_confirmation", "mailbox", mailbox.uid, mailbox.address, held)
    if any(getattr(before, name) != getattr(card, name) for name in _LANE_FIELDS):
        refresh_lanes(session, row)
    return sorted(mailbox.address for mailbox in waiting)


def refresh_lanes(session: Session, row: Provider) -> None:
    """Make the lanes of its mailboxes agree with a provider."""
    # Not at the top: the mailboxes' room stands on this one.
    from tasks.mailboxes import refresh_provider_lanes

    refresh_provider_lanes(session, row.id)


def _switch(actor: Actor, session: Session, name: str, *, disabled: bool) -> Provider:
    word = "disable" if disabled else "enable"
    require(session, actor, _ADMINISTER, f"{word} a provider")
    row = lock(session, name)
    if row.disabled != disabled:
        row.disabled = disabled
        row.updated_at = session.scalar(select(func.now()))
        session.flush()
        changes = {"disabled": (not disabled, disabled)}
        audit(session, actor, f"provider.{word}d", "provider", row.uid, row.name, changes)
        _tell(session, row, f"{word}d", ["disabled"])
        refresh_lanes(session, row)
    return row


def lock(session: Session, name: str) -> Provider:
    """The row for changing, fresh; a mailbox may still be added meanwhile."""
    provider = get(session, name)
    row = session.scalars(
        select(Provider)
        .where(Provider.id == provider.id)
        .options(undefer(Provider.logo))
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if row is None:
        raise _unknown(name)
    return row


def _flush(session: Session, row: Provider) -> None:
    with _name_taken(row.name):
        session.flush()


@contextmanager
def _name_taken(name: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
        if constraint not in ("providers_name_key", "providers_lower_name_key"):
            raise
        raise Conflict(
            f"there is already a provider {quoted(name)}. Choose another name, or change that one: "
            f"mailwright provider edit {shell_word(name)}"
        ) from None


def _in_use(name: str, how: str) -> Conflict:
    return Conflict(
        f"provider {quoted(name)} cannot be removed: {how}. "
        f"Disable it instead: mailwright provider disable {shell_word(name)}"
    )


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no provider {quoted(name)}. List them: mailwright provider list")


def _tell(session: Session, row: Provider, action: str, changed: list[str]) -> None:
    data = {"name": row.name, "action": action, "changed": changed}
    record(session, [NewEvent("provider.changed", None, str(row.uid), data)])
