"""Adding, changing, pausing and confirming mailboxes. Rights are met here; every change is audited."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from config.errors import Conflict, UserError
from schema.tables.access import Operation
from schema.tables.mailboxes import Mailbox, MailboxSecret, MailboxState
from schema.tables.providers import Provider
from tasks import access, providers
from tasks.access import Actor
from tasks.events import NewEvent, record
from tasks.mailboxes import health, lookup, queries, refreshing, seals, store, tokens
from tasks.mailboxes.connection import Heard, Report, TestFailed, examine, unheard
from tasks.mailboxes.lanes import refresh_lanes
from tasks.mailboxes.plan import Door, aware, doors_of, plan
from tasks.mailboxes.routing import access_token_of, awaiting, password_of
from tasks.mailboxes.values import NewMailbox, Protocol, check_password
from tasks.runtime import Runtime
from tasks.secrets import KeyRing
from tasks.wire.sasl import Secret


@dataclass(frozen=True, slots=True)
class Added:
    """A stored mailbox and the tests that were made of it (none where it was not tested).

    ``consent_needed``: it cannot log in before ``mailbox authorize``.
    """

    mailbox: Mailbox
    provider: str
    reports: tuple[Report, ...]
    consent_needed: bool = False


def add(
    actor: Actor,
    runtime: Runtime,
    new: NewMailbox,
    *,
    test: bool = True,
    store_anyway: bool = False,
    heard: Heard = unheard,
) -> Added:
    """Store a mailbox after its connections proved to work.

    The test runs between two transactions; what logs in by OAuth 2.0 is tested with the consent. Raises
    `TestFailed` (nothing stored) unless ``store_anyway``,
    `Conflict` where the address is taken or the provider changed meanwhile, `PermissionDenied`,
    `UserError`.
    """
    if new.password is not None:
        check_password(new.password)
    with runtime.db.begin() as session:
        access.require(session, actor, Operation.MANAGE_MAILBOXES, f"add the mailbox {new.address}")
        planned = plan(session, new)
    reports: tuple[Report, ...] = ()
    if test and new.password is not None:
        secrets = {door.protocol: new.password for door in planned.doors if not door.oauth}
        reports = probe_all(runtime, planned.doors, planned.login, secrets, heard)
        if not store_anyway:
            require_all(reports, new.address)
    with runtime.db.begin() as session:
        access.require(session, actor, Operation.MANAGE_MAILBOXES, f"add the mailbox {new.address}")
        again = plan(session, new)
        if (again.doors, again.login) != (planned.doors, planned.login):
            raise Conflict(
                f'the provider "{again.provider.name}" changed during the test. Add the mailbox again.'
            )
        mailbox = store.insert_mailbox(actor, session, runtime.keyring, new, again)
        note(session, mailbox, reports)
    return Added(mailbox, again.provider.name, reports, any(door.oauth for door in again.doors))


def probe(actor: Actor, runtime: Runtime, address: str, heard: Heard = unheard) -> tuple[Report, ...]:
    """Test a stored mailbox's connections; a paused one too. What the logins tell counts.

    An access token that is over is refreshed first. Raises `NotReady` where a confirmation or consent is
    awaited, `NotFound`, `PermissionDenied`.
    """
    with runtime.db.begin() as session:
        access.require(session, actor, Operation.MANAGE_MAILBOXES, f"test the mailbox {address}")
        mailbox = lookup.get(session, address)
        provider = session.get_one(Provider, mailbox.provider_id)
        doors = doors_of(provider, receive=mailbox.receive, send=mailbox.send)
    if any(door.oauth for door in doors):
        refreshing.refresh(runtime, mailbox.id, urgent=True)
    with runtime.db.begin() as session:
        secrets = opened(session, runtime.keyring, mailbox, provider, doors)
    reports = probe_all(runtime, doors, mailbox.login, secrets, heard)
    with runtime.db.begin() as session:
        note(session, mailbox, reports)
    return reports


@dataclass(frozen=True, slots=True)
class Shown:
    """A mailbox as it is listed, and what its lanes tell."""

    listed: lookup.Listed
    lanes: Mapping[str, Any]


def shown(actor: Actor, session: Session, address: str) -> Shown:
    """A mailbox in full, to who manages mailboxes and to its owner. Raises `NotFound`, `PermissionDenied`."""
    mine = access.user_id(session, actor)
    mailbox = lookup.find(session, address)
    if mailbox is None or mine is None or mailbox.owner_id != mine:
        access.require(session, actor, Operation.MANAGE_MAILBOXES, f"show the mailbox {address}")
    mailbox = lookup.get(session, address)
    lanes = session.execute(queries.LANES, {"mailbox_id": mailbox.id}).mappings().one()
    return Shown(lookup.listed(session, mailbox), dict(lanes))


def pause(
    actor: Actor, session: Session, address: str, *, until: datetime | None = None, reason: str | None = None
) -> Mailbox:
    """Leave a mailbox alone until a time, or until it is resumed. What is on the wire is finished."""
    mailbox = changeable(actor, session, address, "pause")
    if until is not None and aware(until) <= datetime.now(UTC):
        raise UserError(f"the pause would be over already: {until:%Y-%m-%d %H:%M}. Give a later time.")
    before = (mailbox.state, mailbox.paused_until, mailbox.state_reason)
    mailbox.state = MailboxState.PAUSED
    mailbox.paused_until = None if until is None else aware(until)
    mailbox.state_reason = reason
    after = (mailbox.state, mailbox.paused_until, mailbox.state_reason)
    refresh_lanes(session, mailbox.id)
    store.audit(session, actor, "mailbox.paused", mailbox, _differences(before, after))
    ends = None if mailbox.paused_until is None else mailbox.paused_until.isoformat()
    facts = {
        "until": ends,
        "reason": reason,
    }
    record(session, [NewEvent("mailbox.paused", mailbox.id, str(mailbox.uid), _facts(mailbox) | facts)])
    return mailbox


def resume(actor: Actor, session: Session, address: str) -> Mailbox:
    """End a pause, or let a mailbox that needs attention try at once. Raises `Conflict` if active."""
    mailbox = changeable(actor, session, address, "resume")
    if mailbox.state == MailboxState.ACTIVE:
        raise Conflict(f"{mailbox.address} is active already.")
    before = (mailbox.state, mailbox.paused_until, mailbox.state_reason)
    paused = mailbox.state == MailboxState.PAUSED
    health.wake_state(mailbox)
    refresh_lanes(session, mailbox.id)
    health.probe_now(session, mailbox)
    after = (mailbox.state, mailbox.paused_until, mailbox.state_reason)
    store.audit(session, actor, "mailbox.resumed", mailbox, _differences(before, after))
    if paused:
        record(session, [NewEvent("mailbox.resumed", mailbox.id, str(mailbox.uid), _facts(mailbox))])
    return mailbox


def confirm(actor: Actor, session: Session, keyring: KeyRing, address: str) -> Mailbox:
    """Let a mailbox's password go to its provider's present hosts: seal it for them.

    Raises `Conflict` where nothing is awaited.
    """
    mailbox = changeable(actor, session, address, "confirm")
    if not _confirm(actor, session, keyring, mailbox):
        raise Conflict(f"{mailbox.address} waits for no confirmation.")
    return mailbox


def confirm_provider(actor: Actor, session: Session, keyring: KeyRing, name: str, limit: int = 200) -> int:
    """Confirm up to ``limit`` mailboxes of a provider. Returns how many; call again until it is 0."""
    access.require(session, actor, Operation.MANAGE_MAILBOXES, f'confirm the mailboxes of "{name}"')
    provider = providers.get(session, name)
    waiting = session.scalars(
        select(Mailbox)
        .where(
            Mailbox.provider_id == provider.id,
            Mailbox.awaiting_confirmation,
            Mailbox.state != MailboxState.REMOVING,
        )
        .order_by(Mailbox.id)
        .limit(limit)
        .with_for_update()
    ).all()
    for mailbox in waiting:
        _confirm(actor, session, keyring, mailbox)
    return len(waiting)


def changeable(actor: Actor, session: Session, address: str, verb: str) -> Mailbox:
    """The mailbox, locked for a change that ``actor`` may make. Raises `Conflict` while it is removed."""
    access.require(session, actor, Operation.MANAGE_MAILBOXES, f"{verb} the mailbox {address}")
    mailbox = lookup.get(session, address)
    session.refresh(mailbox, with_for_update=True)
    if mailbox.state == MailboxState.REMOVING:
        raise Conflict(
            f"{mailbox.address} is being removed. Finish it: mailwright mailbox remove {mailbox.address}"
        )
    return mailbox


def opened(
    session: Session, keyring: KeyRing, mailbox: Mailbox, provider: Provider, doors: Sequence[Door]
) -> dict[Protocol, Secret]:
    """What each door opens to, if it may be shown to the provider's present hosts. Raises `NotReady`."""
    if mailbox.awaiting_confirmation:
        raise awaiting(mailbox)
    secret = session.get(MailboxSecret, mailbox.id)
    row = tokens.row_of(session, mailbox.id)
    return {
        door.protocol: access_token_of(keyring, mailbox, provider, row, door.protocol)
        if door.oauth
        else password_of(keyring, mailbox, provider, secret, door.protocol)
        for door in doors
    }


def probe_all(
    runtime: Runtime, doors: Sequence[Door], login: str, secrets: Mapping[Protocol, Secret], heard: Heard
) -> tuple[Report, ...]:
    """Test each door that there is a secret for. For use outside any transaction."""
    return tuple(
        examine(
            door,
            login,
            secrets[door.protocol],
            imap_timeout=runtime.settings.imap_timeout_seconds,
            connect_timeout=runtime.settings.connect_timeout_seconds,
            heard=heard,
        )
        for door in doors
        if door.protocol in secrets
    )


def require_all(reports: tuple[Report, ...], address: str) -> None:
    """Raises `TestFailed` naming the first step that failed, and the ways on."""
    for report in reports:
        if report.failure is not None:
            raise TestFailed(
                f"{address} was not stored: {report.protocol.upper()} at {report.server} failed at "
                f"{report.failure.step}. {report.failure.said} {report.failure.remedy} "
                "(--store-anyway stores it all the same.)",
                reports,
            )


def note(session: Session, mailbox: Mailbox, reports: Sequence[Report]) -> None:
    """Let what a test found out about the credentials count."""
    for report in reports:
        if report.ok:
            health.login_worked(session, mailbox.id, report.protocol)
        elif report.refused and report.failure is not None:
            health.login_refused(session, mailbox.id, report.protocol, report.failure.said)


def _confirm(actor: Actor, session: Session, keyring: KeyRing, mailbox: Mailbox) -> bool:
    provider = session.get_one(Provider, mailbox.provider_id)
    secret = session.get(MailboxSecret, mailbox.id)
    row = tokens.row_of(session, mailbox.id, lock=True)
    sealed_for = sorted({each.route for each in (secret, row) if each is not None})
    after = seals.route_of(provider)
    if not mailbox.awaiting_confirmation and all(seals.covers(before, after) for before in sealed_for):
        return False
    if secret is not None:
        password = seals.unseal(keyring, mailbox.uid, secret)
        session.expunge(secret)
        store.store_secret(session, keyring, mailbox.id, mailbox.uid, password, after)
    if row is not None:
        seals.hold_ring(session)
        tokens.reseal(keyring, mailbox.uid, row, after)
    mailbox.awaiting_confirmation = False
    health.forget_refusals(session, mailbox)
    refresh_lanes(session, mailbox.id)
    store.audit(session, actor, "mailbox.confirmed", mailbox, {"route": ("; ".join(sealed_for), after)})
    return True


def _facts(mailbox: Mailbox) -> dict[str, str]:
    return {"mailbox": str(mailbox.uid), "address": mailbox.address}


def _differences(
    before: tuple[str, datetime | None, str | None], after: tuple[str, datetime | None, str | None]
) -> dict[str, tuple[str | None, str | None]]:
    names = ("state", "until", "reason")
    told = [
        tuple(value.isoformat() if isinstance(value, datetime) else value for value in side)
        for side in (before, after)
    ]
    return {name: (old, new) for name, old, new in zip(names, told[0], told[1], strict=True) if old != new}
