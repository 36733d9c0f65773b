"""A provider and mailboxes on a test's servers, stored without asking rights or testing connections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from config.queues import Lane
from schema.ids import uuid7
from schema.tables.mailboxes import Mailbox
from schema.tables.providers import Provider, ProviderDomain
from tasks import schedule
from tasks.access import SYSTEM
from tasks.mailboxes.lanes import refresh_lanes
from tasks.mailboxes.seals import route_of
from tasks.mailboxes.store import store_secret
from tasks.runtime import Runtime
from tasks.sync import sync_mailbox


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a test's servers listen on loopback; None for what is not there."""

    imap: int | None = None
    smtp: int | None = None
    imap_security: str = "none"
    smtp_security: str = "none"
    ca: Path | None = None
    host: str = "127.0.0.1"


def add_provider(runtime: Runtime, ports: Ports, name: str = "Test", **fields: object) -> int:
    """Store a provider on loopback; returns its id."""
    with runtime.db.begin() as session:
        provider = Provider(
            uid=uuid7(),
            name=name,
            receive=ports.imap is not None,
            imap_host=ports.host,
            imap_port=ports.imap or 1,
            imap_security=ports.imap_security,
            send=ports.smtp is not None,
            smtp_host=ports.host,
            smtp_port=ports.smtp or 1,
            smtp_security=ports.smtp_security,
            ca=ports.ca.read_text() if ports.ca else None,
            **fields,
        )
        session.add(provider)
        session.flush()
        session.add(
            ProviderDomain(domain=f"{name.lower().replace(' ', '-')}.example", provider_id=provider.id)
        )
        return provider.id


def add_mailbox(runtime: Runtime, provider_id: int, address: str, password: str, **fields: object) -> int:
    """Store a mailbox whose login is its address; returns its id."""
    (mailbox_id,) = add_mailboxes(runtime, provider_id, [address], password, **fields)
    return mailbox_id


def add_mailboxes(
    runtime: Runtime, provider_id: int, addresses: Sequence[str], password: str, **fields: object
) -> list[int]:
    """Store many, some hundreds in a transaction; returns their ids."""
    return [
        mailbox_id
        for start in range(0, len(addresses), 500)
        for mailbox_id in _add_some(runtime, provider_id, addresses[start : start + 500], password, fields)
    ]


def _add_some(
    runtime: Runtime, provider_id: int, addresses: Sequence[str], password: str, fields: Mapping[str, object]
) -> list[int]:
    with runtime.db.begin() as session:
        provider = session.get_one(Provider, provider_id)
        mailboxes = [
            Mailbox(
                uid=uuid7(),
                address=address,
                address_key=address.lower(),
                provider_id=provider_id,
                login=address,
                receive=provider.receive,
                send=provider.send,
                **fields,
            )
            for address in addresses
        ]
        session.add_all(mailboxes)
        session.flush()
        for mailbox in mailboxes:
            store_secret(session, runtime.keyring, mailbox.id, mailbox.uid, password, route_of(provider))
            refresh_lanes(session, mailbox.id)
        return [mailbox.id for mailbox in mailboxes]


def sync_now(runtime: Runtime, mailbox_id: int, passes: int = 1) -> None:
    """Claim one mailbox and sync it in this process, ``passes`` times."""
    for _ in range(passes):
        with runtime.db.begin() as session:
            session.execute(
                text(
                    "UPDATE mailwright.schedule SET next_poll_at = now() - interval '1 day' "
                    "WHERE mailbox_id = :id"
                ),
                {"id": mailbox_id},
            )
        for lane in (Lane.SYNC, Lane.HISTORY):
            for claim in schedule.claim(runtime, lane):
                assert claim.mailbox_id == mailbox_id, "another mailbox was due"
                sync_mailbox(SYSTEM, runtime, claim)
