"""Sealing every stored secret again under the key ring's last key, in batches, at any time.

Each batch is one transaction that locks its rows, so a rotation may be broken off and begun again,
and workers go on meanwhile: a row opens under the key that its own ``key_id`` names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from config.errors import Conflict, UserError
from schema.tables.access import Operation
from schema.tables.mailboxes import Mailbox, MailboxSecret, MailboxToken
from tasks import access, providers
from tasks.access import Actor
from tasks.mailboxes import seals, tokens
from tasks.runtime import Runtime
from tasks.secrets import append_key, keep_only, new_key_line, parse_key_ring

BATCH: Final = 200
_ALONE: Final = text("SELECT pg_advisory_xact_lock(hashtext('mailwright.keyring'))")


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did. ``active`` is the key that seals; ``dropped`` the keys that left the ring."""

    active: str
    added: bool
    resealed: int
    dropped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Openable:
    """How many of the stored secrets the ring opens, and whose it does not (the first few)."""

    total: int
    opened: int
    failed: tuple[str, ...]


Heard = Callable[[int, int], None]
"""Told after each batch: how many were done, of how many."""


def rotate(
    actor: Actor,
    runtime: Runtime,
    *,
    heard: Heard,
    drop_old: bool = False,
) -> Rotated:
    """Add a key to the ring file and seal every mailbox's and provider's secret under it.

    Where secrets still wait under older keys (a rotation broken off, or a key added by hand), no key
    is added and the rest is done. A ring in the environment gets no key from us. Raises `UserError`
    where a secret opens with no key at hand, before anything is dropped.
    """
    ring = runtime.keyring
    with runtime.db.begin() as session:
        access.require(session, actor, Operation.MANAGE_ADMINISTRATION, "rotate the key ring")
        ring.reload()
        behind = _behind(session, ring.active)
        total = behind
    added = ring.path is not None and behind == 0 and not (drop_old and len(ring.keys) > 1)
    if added:
        assert ring.path is not None
        append_key(ring.path, new_key_line())
        ring.reload()
        with runtime.db.begin() as session:
            total = _behind(session, ring.active)
    done, last = 0, 0
    while True:
        with runtime.db.begin() as session:
            batch = _reseal(session, runtime, last)
        if not batch:
            break
        last, done = batch[-1], done + len(batch)
        heard(done, max(total, done))
    last = 0
    while True:
        with runtime.db.begin() as session:
            batch = _reseal_tokens(session, runtime, last)
        if not batch:
            break
        last, done = batch[-1], done + len(batch)
        heard(done, max(total, done))
    with runtime.db.begin() as session:
        done += providers.reseal_client_secrets(session, ring)
    dropped = _drop(runtime) if drop_old else ()
    with runtime.db.begin() as session:
        changes: dict[str, tuple[object, object]] = {
            "active": (None, ring.active),
            "resealed": (None, done),
        }
        if dropped:
            changes["dropped"] = (", ".join(dropped), None)
        access.audit(session, actor, "secret.rotated", "key ring", None, "key ring", changes)
    return Rotated(ring.active, added, done, dropped)


def check_openable(session: Session, runtime: Runtime) -> Openable:
    """Try every stored secret against the ring; no plaintext leaves this function."""
    total = opened = 0
    failed: list[str] = []
    rows = session.execute(
        select(MailboxSecret, Mailbox.uid, Mailbox.address)
        .join(Mailbox, Mailbox.id == MailboxSecret.mailbox_id)
        .execution_options(yield_per=500)
    )
    for secret, uid, address in rows:
        total += 1
        try:
            seals.unseal(runtime.keyring, uid, secret)
        except UserError:
            if len(failed) < 3:
                failed.append(address)
        else:
            opened += 1
    granted = session.execute(
        select(MailboxToken, Mailbox.uid, Mailbox.address)
        .join(Mailbox, Mailbox.id == MailboxToken.mailbox_id)
        .execution_options(yield_per=500)
    )
    for row, uid, address in granted:
        total += 1
        try:
            tokens.unsealed(runtime.keyring, uid, row)
        except UserError:
            if len(failed) < 3:
                failed.append(address)
        else:
            opened += 1
    return Openable(total, opened, tuple(failed))


def _behind(session: Session, active: str) -> int:
    return sum(
        session.execute(select(func.count()).select_from(table).where(table.key_id != active)).scalar_one()
        for table in (MailboxSecret, MailboxToken)
    )


def _reseal(session: Session, runtime: Runtime, after: int) -> list[int]:
    rows = session.execute(
        select(MailboxSecret, Mailbox.uid)
        .join(Mailbox, Mailbox.id == MailboxSecret.mailbox_id)
        .where(MailboxSecret.mailbox_id > after, MailboxSecret.key_id != runtime.keyring.active)
        .order_by(MailboxSecret.mailbox_id)
        .limit(BATCH)
        .with_for_update(of=MailboxSecret)
    ).all()
    for secret, uid in rows:
        sealed = seals.seal(runtime.keyring, uid, seals.unseal(runtime.keyring, uid, secret), secret.route)
        secret.key_id, secret.nonce, secret.sealed = sealed.key_id, sealed.nonce, sealed.sealed
    return [secret.mailbox_id for secret, _ in rows]


def _reseal_tokens(session: Session, runtime: Runtime, after: int) -> list[int]:
    rows = session.execute(
        select(MailboxToken, Mailbox.uid)
        .join(Mailbox, Mailbox.id == MailboxToken.mailbox_id)
        .where(MailboxToken.mailbox_id > after, MailboxToken.key_id != runtime.keyring.active)
        .order_by(MailboxToken.mailbox_id)
        .limit(BATCH)
        .with_for_update(of=MailboxToken)
    ).all()
    for row, uid in rows:
        tokens.reseal(runtime.keyring, uid, row)
    return [row.mailbox_id for row, _ in rows]


def _drop(runtime: Runtime) -> tuple[str, ...]:
    ring = runtime.keyring
    if ring.path is None:
        raise UserError(
            "the key ring is in MAILWRIGHT_KEY_RING, which only you can change. Every secret is under "
            f'key "{ring.active}" now: take the other keys out of the variable and restart.'
        )
    with runtime.db.begin() as session:
        session.execute(_ALONE)
        providers.reseal_client_secrets(session, ring)
        if _behind(session, ring.active):
            raise Conflict(
                "secrets were stored under older keys meanwhile; no key was dropped. Run it again."
            )
        file_keys = parse_key_ring(ring.path.read_text(encoding="ascii"), str(ring.path))
        if file_keys.active != ring.active:
            raise Conflict("another rotation added a key meanwhile; no key was dropped. Run it again.")
        dropped = keep_only(ring.path, ring.active)
    ring.reload()
    return tuple(dropped)
