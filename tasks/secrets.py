"""Secrets under AES-GCM: a rotatable key ring, and associated data that ties a secret to its use.

The ring is text, one ``id:base64-of-32-bytes`` a line (or comma-separated); the last key seals,
every key opens. Keys and plaintext are held in objects whose ``repr`` shows neither. A ring that
came from a file is read again where it meets an unknown key and before it seals, so that a
rotation needs no restart.
"""

import base64
import binascii
import contextlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from config.errors import UserError
from config.settings import Settings

_NONCE_BYTES = 12
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Sealed:
    """What the database holds of a secret."""

    key_id: str
    nonce: bytes
    sealed: bytes


@dataclass(slots=True)
class KeyRing:
    """Keys by id, oldest first. ``path`` is the file they came from, None where they came otherwise."""

    keys: tuple[tuple[str, bytes], ...] = field(repr=False)
    path: Path | None = None

    @property
    def active(self) -> str:
        """The id of the key that seals."""
        return self.keys[-1][0]

    def seal(self, secret: str, context: str) -> Sealed:
        """Encrypt ``secret`` for one use; ``context`` must be given again to open it."""
        self.reload()
        key_id, key = self.keys[-1]
        nonce = os.urandom(_NONCE_BYTES)
        return Sealed(
            key_id, nonce, AESGCM(key).encrypt(nonce, secret.encode(), _associated(key_id, context))
        )

    def open(self, sealed: Sealed, context: str) -> str:
        """Decrypt. Raises `UserError` where the key is gone or the context is another."""
        if sealed.key_id not in dict(self.keys):
            self.reload()
        key = dict(self.keys).get(sealed.key_id)
        if key is None:
            raise UserError(
                f'the key ring lacks key "{sealed.key_id}", under which a secret is sealed. '
                "Restore that key to the ring, or store the secret again."
            )
        try:
            return (
                AESGCM(key).decrypt(sealed.nonce, sealed.sealed, _associated(sealed.key_id, context)).decode()
            )
        except InvalidTag:
            raise UserError(
                "a sealed secret does not open with the key ring at hand. "
                "Restore the ring it was sealed with, or store the secret again."
            ) from None

    def reload(self) -> None:
        """Take the keys that the file holds now; one that vanished or broke leaves those at hand."""
        if self.path is None:
            return
        with contextlib.suppress(UserError):
            self.keys = read_key_ring(self.path).keys


def load_key_ring(settings: Settings) -> KeyRing:
    """The ring from the settings. Raises `UserError` where there is none or it is malformed."""
    if settings.key_ring is not None:
        return parse_key_ring(settings.key_ring.get_secret_value(), "MAILWRIGHT_KEY_RING")
    return read_key_ring(settings.key_ring_path())


def read_key_ring(path: Path) -> KeyRing:
    """The ring in a file. Raises `UserError` where it is absent, unreadable or malformed."""
    try:
        keys = parse_key_ring(path.read_text(encoding="ascii"), str(path)).keys
        return KeyRing(keys, path)
    except FileNotFoundError:
        raise UserError(
            f"there is no key ring at {path}. Make one with `mailwright secret init`, "
            "or set MAILWRIGHT_KEY_RING or MAILWRIGHT_KEY_RING_FILE to yours."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the key ring at {path} cannot be read: {type(error).__name__}. Check the file."
        ) from None


def parse_key_ring(text: str, source: str) -> KeyRing:
    """Read a ring's text; ``source`` is named in the error."""
    keys: list[tuple[str, bytes]] = []
    for line in text.replace(",", "\n").splitlines():
        if not line.strip():
            continue
        key_id, _, encoded = line.strip().partition(":")
        key = b""
        with contextlib.suppress(binascii.Error, ValueError):
            key = base64.b64decode(encoded, validate=True)
        if not key_id or len(key) != _KEY_BYTES or key_id in dict(keys):
            raise UserError(
                f"the key ring in {source} is malformed at key {len(keys) + 1}: "
                "each line must be a new id, a colon, and 32 bytes in base64."
            )
        keys.append((key_id, key))
    if not keys:
        raise UserError(f"the key ring in {source} is empty. Make one with `mailwright secret init`.")
    return KeyRing(tuple(keys))


def new_key_line() -> str:
    """A fresh ring line: a random id and a random key."""
    return f"k{secrets.token_hex(4)}:{base64.b64encode(os.urandom(_KEY_BYTES)).decode()}"


def append_key(path: Path, line: str) -> None:
    """Add a key to a ring file (made 0600 where absent), in one durable step."""
    old = path.read_text(encoding="ascii") if path.exists() else ""
    _replace(path, old + ("" if not old or old.endswith("\n") else "\n") + line + "\n")


def keep_only(path: Path, key_id: str) -> list[str]:
    """Drop every key but one from a ring file, in one durable step. Returns the dropped ids."""
    keys = read_key_ring(path).keys
    kept = [f"{name}:{base64.b64encode(key).decode()}\n" for name, key in keys if name == key_id]
    _replace(path, "".join(kept))
    return [name for name, _ in keys if name != key_id]


def _replace(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)  # what a killed process of our number left
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _associated(key_id: str, context: str) -> bytes:
    return f"{key_id}\0{context}".encode()
