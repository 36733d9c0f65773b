"""Editing a mailbox: what a change means for its password, its lanes and its history of refusals."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete
from sqlalchemy.orm import Session

from config.errors import Conflict, UserError
from schema.tables.access import Operation, User
from schema.tables.mailboxes import Mailbox, MailboxSecret, MailboxToken
from schema.tables.providers import Provider
from tasks import access, providers
from tasks.access import Actor
from tasks.mailboxes import engine, health, lookup, queries, seals, store
from tasks.mailboxes import plan as planning
from tasks.mailboxes.connection import Heard, Report, unheard
from tasks.mailboxes.lanes import refresh_lanes
from tasks.mailboxes.routing import awaiting
from tasks.mailboxes.values import Changes, Protocol, check_password
from tasks.runtime import Runtime
from tasks.wire.sasl import Secret

_CREDENTIALS = ("login", "password", "provider")
_ENTERED = ("display_name", "receive", "send", "history_days", "poll_seconds")


def edit(
    actor: Actor,
    runtime: Runtime,
    address: str,
    changes: Changes,
    *,
    test: bool = True,
    store_anyway: bool = False,
    heard: Heard = unheard,
) -> tuple[Mailbox, tuple[Report, ...]]:
    """Change a mailbox. New credentials are tested first and reset what refusals were counted.

    Another provider with other hosts wants the password anew, in the same edit. Raises as
    `tasks.mailboxes.engine.add` does.
    """
    reports: tuple[Report, ...] = ()
    if "password" in changes:
        check_password(changes["password"])
    if test and any(name in changes for name in _CREDENTIALS):
        with runtime.db.begin() as session:
            access.require(session, actor, Operation.MANAGE_MAILBOXES, f"edit the mailbox {address}")
            mailbox = lookup.get(session, address)
            provider = _provider(session, mailbox, changes)
            doors = planning.doors_of(
                provider,
                receive=changes.get("receive", mailbox.receive),
                send=changes.get("send", mailbox.send),
            )
            login = _login(mailbox, provider, changes)
            secrets = _secrets(session, runtime, mailbox, provider, doors, changes)
        reports = engine.probe_all(runtime, doors, login, secrets, heard)
        if not store_anyway:
            engine.require_all(reports, address)
    with runtime.db.begin() as session:
        mailbox = engine.changeable(actor, session, address, "edit")
        _apply(actor, session, runtime, mailbox, changes)
        engine.note(session, mailbox, reports)
    return mailbox, reports


def _provider(session: Session, mailbox: Mailbox, changes: Changes) -> Provider:
    if "provider" in changes:
        return providers.get(session, changes["provider"])
    return session.get_one(Provider, mailbox.provider_id)


def _login(mailbox: Mailbox, provider: Provider, changes: Changes) -> str:
    local = providers.split_address(mailbox.address).local
    if "login" in changes:
        return planning.derive_login(provider, local, mailbox.address, changes["login"])
    if provider.id != mailbox.provider_id:
        return planning.derive_login(provider, local, mailbox.address, None)
    return mailbox.login


def _secrets(
    session: Session,
    runtime: Runtime,
    mailbox: Mailbox,
    provider: Provider,
    doors: Sequence[planning.Door],
    changes: Changes,
) -> dict[Protocol, Secret]:
    """What can be tested with: passwords. Access tokens are tested when consent is given."""
    by_password = [door.protocol for door in doors if not door.oauth]
    if not by_password:
        return {}
    return dict.fromkeys(by_password, _password(session, runtime, mailbox, provider, changes))


def _password(
    session: Session, runtime: Runtime, mailbox: Mailbox, provider: Provider, changes: Changes
) -> str:
    if "password" in changes:
        return changes["password"]
    secret = session.get(MailboxSecret, mailbox.id)
    if secret is not None and mailbox.awaiting_confirmation:
        raise awaiting(mailbox)
    if secret is None or not seals.covers(secret.route, seals.route_of(provider)):
        raise UserError(
            f'the password of {mailbox.address} was not meant for the hosts of "{provider.name}". '
            "Give it again in the same command: --password-stdin."
        )
    return seals.unseal(runtime.keyring, mailbox.uid, secret)


def _apply(actor: Actor, session: Session, runtime: Runtime, mailbox: Mailbox, changes: Changes) -> None:
    provider = _provider(session, mailbox, changes)
    audited: dict[str, tuple[Any, Any]] = {}

    def put(field: str, value: Any) -> None:
        before = getattr(mailbox, field)
        if before != value:
            audited[field] = (_shown(before), _shown(value))
            setattr(mailbox, field, value)

    planning.check_numbers(changes.get("history_days"), changes.get("poll_seconds"))
    planning.check_folders(changes.get("folders"))
    doors = planning.doors_of(
        provider, receive=changes.get("receive", mailbox.receive), send=changes.get("send", mailbox.send)
    )
    login = _login(mailbox, provider, changes)
    if provider.id != mailbox.provider_id:
        if provider.disabled:
            raise Conflict(f'the provider "{provider.name}" is disabled. Enable it first, or name another.')
        _secrets(session, runtime, mailbox, provider, doors, changes)
        session.execute(delete(MailboxToken).where(MailboxToken.mailbox_id == mailbox.id))
        before = session.get_one(Provider, mailbox.provider_id).name
        audited["provider"] = (before, provider.name)
        mailbox.provider_id = provider.id
    put("login", login)
    for name in _ENTERED:
        if name in changes:
            put(name, changes.get(name))
    if "folders" in changes:
        folders = changes["folders"]
        put("folders", None if folders is None else list(folders))
    if "notify_from" in changes:
        put("notify_from", planning.aware(changes["notify_from"]))
    if "keep" in changes:
        put("keep", changes["keep"].value)
    if "send_as" in changes:
        put("send_as", list(planning.checked_senders(changes["send_as"])))
    if "owner" in changes:
        _put_owner(session, mailbox, changes["owner"], audited)
    if "password" in changes:
        store.store_secret(
            session, runtime.keyring, mailbox.id, mailbox.uid, changes["password"], seals.route_of(provider)
        )
        mailbox.awaiting_confirmation = False
        audited["password"] = (access.MASKED, access.MASKED)
    session.flush()
    if any(name in audited for name in _CREDENTIALS):
        health.forget_refusals(session, mailbox)
    refresh_lanes(session, mailbox.id)
    if any(name in audited for name in _CREDENTIALS):
        session.execute(queries.WAKE, {"mailbox_id": mailbox.id})
    if "poll_seconds" in audited:
        session.execute(
            queries.SET_INTERVAL, {"mailbox_id": mailbox.id, "interval": mailbox.poll_seconds or 30.0}
        )
    if audited:
        store.audit(session, actor, "mailbox.edited", mailbox, audited)


def _put_owner(
    session: Session, mailbox: Mailbox, name: str | None, audited: dict[str, tuple[Any, Any]]
) -> None:
    owner_id = None if name is None else planning.owner_named(session, name)
    if owner_id == mailbox.owner_id:
        return
    before = None if mailbox.owner_id is None else session.get_one(User, mailbox.owner_id).name
    audited["owner"] = (before, name)
    mailbox.owner_id = owner_id


def _shown(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
