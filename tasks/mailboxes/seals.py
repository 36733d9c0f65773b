"""Which hosts a sealed password may be shown to.

The route of a secret is text such as ``imap=tls@imap.aol.com smtp=tls@smtp.aol.com``. It is
stored beside the secret and is part of its associated data. A port may change and security may
grow without asking; another host or weaker security is another route, and only a confirmation
seals the password for it.
"""

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from schema.tables.mailboxes import MailboxSecret
from schema.tables.providers import Provider
from schema.tables.providers import Security as StoredSecurity
from tasks.mailboxes.values import Protocol
from tasks.secrets import KeyRing, Sealed

_STRENGTH: Final = {StoredSecurity.NONE: 0, StoredSecurity.STARTTLS: 1, StoredSecurity.TLS: 1}
"""STARTTLS is never skipped and its certificate verified, so it protects as TLS does."""


# Sealing holds this shared; dropping old keys holds it alone, so that no secret appears under a key
# on its way out.
_SEALING: Final = text("SELECT pg_advisory_xact_lock_shared(hashtext('mailwright.keyring'))")


def hold_ring(session: Session) -> None:
    """Keep every key in the ring until this transaction ends: before a secret is sealed and stored."""
    session.execute(_SEALING)


def route_of(provider: Provider) -> str:
    """The route that a password for ``provider`` is sealed for today."""
    parts = []
    if provider.receive:
        parts.append(f"{Protocol.IMAP}={provider.imap_security}@{_host(provider.imap_host)}")
    if provider.send:
        parts.append(f"{Protocol.SMTP}={provider.smtp_security}@{_host(provider.smtp_host)}")
    return " ".join(parts)


def covers(sealed_route: str, wanted_route: str) -> bool:
    """Whether a password sealed for one route may go where another leads: the same hosts, no
    protocol less protected. A protocol that ``sealed_route`` lacks is not covered, unless the
    password goes to that very host already, no less protected."""
    known = _parse(sealed_route)
    return all(
        any(
            host == sealed_host and _STRENGTH[security] >= _STRENGTH[sealed_security]
            for sealed_protocol, sealed_security, sealed_host in known
            if sealed_protocol == protocol or not any(p == protocol for p, _, _ in known)
        )
        for protocol, security, host in _parse(wanted_route)
    )


def part(route: str, protocol: Protocol) -> str:
    """The part of a route that concerns one protocol; empty where there is none."""
    return next((each for each in route.split() if each.startswith(f"{protocol}=")), "")


def seal(keyring: KeyRing, uid: UUID, password: str, route: str) -> Sealed:
    """Encrypt a mailbox's password for a route."""
    return keyring.seal(password, _context(uid, route))


def unseal(keyring: KeyRing, uid: UUID, secret: MailboxSecret) -> str:
    """Decrypt it. Raises `UserError` where the ring lacks the key or the row was tampered with."""
    return keyring.open(Sealed(secret.key_id, secret.nonce, secret.sealed), _context(uid, secret.route))


def _context(uid: UUID, route: str) -> str:
    return f"mailbox:{uid}|{route}"


def _host(host: str | None) -> str:
    return (host or "").lower()


def _parse(route: str) -> list[tuple[Protocol, StoredSecurity, str]]:
    found = []
    for each in route.split():
        protocol, _, rest = each.partition("=")
        security, _, host = rest.partition("@")
        found.append((Protocol(protocol), StoredSecurity(security), host))
    return found
