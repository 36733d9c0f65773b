"""From a wish to the rows it means: what is derived, what is refused, before anything is stored."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from config.errors import Conflict, NotFound, UserError
from schema.tables.access import User
from schema.tables.providers import LoginMode, Provider
from tasks import providers
from tasks.mailboxes import lookup
from tasks.mailboxes.routing import endpoint_of, offers
from tasks.mailboxes.seals import route_of
from tasks.mailboxes.tokens import by_oauth
from tasks.mailboxes.values import NewMailbox, Protocol
from tasks.wire.net import Endpoint

LONGEST_LOGIN: Final = 320
LONGEST_INTERVAL: Final = 86_400.0
MOST_SEND_AS: Final = 100


@dataclass(frozen=True, slots=True)
class Door:
    """One protocol that a mailbox will use, where, and how long its dialogue may wait (seconds)."""

    protocol: Protocol
    endpoint: Endpoint
    timeout: float
    oauth: bool = False
    """Whether it opens to an access token, not a password."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a wish for a mailbox comes to. ``route`` is what its password will be sealed for."""

    address: str
    address_key: str
    provider: Provider
    login: str
    owner_id: int | None
    send_as: tuple[str, ...]
    doors: tuple[Door, ...]
    route: str


def plan(session: Session, new: NewMailbox) -> Plan:
    """Derive provider, login and doors. Raises `UserError`, `NotFound`, `Conflict`, each with the way on."""
    address = providers.split_address(new.address)
    if lookup.find(session, new.address) is not None:
        raise Conflict(
            f"the mailbox {new.address} exists already. See `mailwright mailbox show {new.address}`."
        )
    provider = (
        providers.get(session, new.provider)
        if new.provider is not None
        else providers.provider_for_address(session, new.address)
    )
    if provider.disabled:
        raise UserError(
            f'the provider "{provider.name}" is disabled. Enable it, or name another: --provider NAME.'
        )
    check_numbers(new.history_days, new.poll_seconds)
    check_folders(new.folders)
    doors = doors_of(provider, receive=new.receive, send=new.send)
    if new.password is None and not all(door.oauth for door in doors):
        raise UserError(
            "a mailbox needs its password. Give it on standard input: "
            "mailwright mailbox add ADDRESS --password-stdin < FILE"
        )
    return Plan(
        address=new.address.strip(),
        address_key=address.key,
        provider=provider,
        login=derive_login(provider, address.local, new.address.strip(), new.login),
        owner_id=None if new.owner is None else owner_named(session, new.owner),
        send_as=checked_senders(new.send_as),
        doors=doors,
        route=route_of(provider),
    )


def derive_login(provider: Provider, local: str, address: str, given: str | None) -> str:
    """The login at ``provider``: the given one, else what its mode makes of the address (SPEC §1)."""
    if given is not None:
        login = given.strip()
        if not login or len(login) > LONGEST_LOGIN or not login.isprintable():
            raise UserError(f"a login must be one line of 1 to {LONGEST_LOGIN} characters.")
        return login
    match LoginMode(provider.login_mode):
        case LoginMode.EMAIL:
            return address
        case LoginMode.USER:
            return local
        case LoginMode.MANUAL:
            raise UserError(
                f'the provider "{provider.name}" wants the login entered manually: --login LOGIN.'
            )


def doors_of(provider: Provider, *, receive: bool, send: bool) -> tuple[Door, ...]:
    """The protocols that a mailbox with these switches uses. Raises `UserError` where there is none."""
    wanted = {Protocol.IMAP: receive, Protocol.SMTP: send}
    used = [protocol for protocol in Protocol if wanted[protocol] and offers(provider, protocol)]
    if not used:
        raise UserError(
            f'the mailbox would neither receive nor send, given what "{provider.name}" offers. '
            "Leave out --no-receive or --no-send."
        )
    return tuple(
        Door(
            protocol,
            endpoint_of(provider, protocol),
            float(provider.smtp_timeout),
            by_oauth(provider, protocol),
        )
        for protocol in used
    )


def owner_named(session: Session, name: str) -> int:
    """The user's inner id. Raises `NotFound`."""
    found = session.execute(select(User.id).where(func.lower(User.name) == name.lower())).scalar_one_or_none()
    if found is None:
        raise NotFound(f'there is no user "{name}". Add one: mailwright user add "{name}"')
    return found


def checked_senders(addresses: Sequence[str]) -> tuple[str, ...]:
    """Addresses that a mailbox may send as, each checked, without repeats."""
    if len(addresses) > MOST_SEND_AS:
        raise UserError(f"a mailbox may send as at most {MOST_SEND_AS} other addresses.")
    return tuple(dict.fromkeys(providers.split_address(address).key for address in addresses))


def check_numbers(history_days: int | None, poll_seconds: float | None) -> None:
    """Raises `UserError` where a number makes no sense."""
    if history_days is not None and not 0 <= history_days <= 36_500:
        raise UserError("days of history must be from 0 to 36500; leave the option out for all there is.")
    if poll_seconds is not None and not (
        math.isfinite(poll_seconds) and 1 <= poll_seconds <= LONGEST_INTERVAL
    ):
        raise UserError(f"the poll interval must be from 1 to {LONGEST_INTERVAL:.0f} seconds.")


def check_folders(folders: Sequence[str] | None) -> None:
    """Raises `UserError` where a folder's name cannot be one."""
    if folders is not None and not folders:
        raise UserError("name at least one folder, or none at all to follow every folder.")
    for folder in folders or ():
        if not folder.strip() or len(folder) > 1000 or any(ord(char) < 32 for char in folder):
            raise UserError("a folder's name must be 1 to 1000 characters on one line.")


def aware(moment: datetime | None) -> datetime:
    """``moment``, or now; a time without a zone is UTC."""
    if moment is None:
        return datetime.now(UTC)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
