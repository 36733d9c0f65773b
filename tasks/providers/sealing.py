"""The OAuth client secret of a provider: sealed for that provider, packed into one column."""

from uuid import UUID

from sqlalchemy.orm import Session

from config.errors import UserError
from tasks.access import SYSTEM, audit
from tasks.providers import queries
from tasks.secrets import KeyRing, Sealed

_NONCE_BYTES = 12


def seal_client_secret(keyring: KeyRing, uid: UUID, secret: str) -> bytes:
    """What the column holds: length of the key id (1 byte), key id, nonce (12 bytes), sealed text."""
    sealed = keyring.seal(secret, _context(uid))
    key_id = sealed.key_id.encode()
    if len(key_id) > 255:
        raise UserError(
            "the active key's id in the key ring is longer than 255 bytes. Give it a shorter one."
        )
    return bytes([len(key_id)]) + key_id + sealed.nonce + sealed.sealed


def open_client_secret(keyring: KeyRing, uid: UUID, packed: bytes) -> str:
    """Raises `UserError` where the key is gone or the secret is another provider's."""
    return keyring.open(_unpack(packed), _context(uid))


def reseal_client_secrets(session: Session, keyring: KeyRing) -> int:
    """Seal every client secret that is under an older key with the active one; how many."""
    done = 0
    for row in session.execute(queries.SEALED_SECRETS).all():
        sealed = _unpack(row.oauth_client_secret)
        if sealed.key_id == keyring.active:
            continue
        secret = keyring.open(sealed, _context(row.uid))
        session.execute(
            queries.STORE_SECRET, {"id": row.id, "packed": seal_client_secret(keyring, row.uid, secret)}
        )
        done += 1
    if done:
        counted = {"count": (None, done)}
        audit(session, SYSTEM, "provider.resealed", "provider", None, "OAuth client secrets", counted)
    return done


def _unpack(packed: bytes) -> Sealed:
    end = 1 + packed[0]
    return Sealed(packed[1:end].decode(), packed[end : end + _NONCE_BYTES], packed[end + _NONCE_BYTES :])


def _context(uid: UUID) -> str:
    return f"provider:{uid}"
