"""API keys: who calls over HTTP, and for what.

A key is ``mwk_``, the key's id in hexadecimal, ``_`` and 256 random bits. It is shown once and stored as its
SHA-256; a digest without salt or stretching is enough for what nobody can guess.
"""

import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from config.errors import NotFound, PermissionDenied, UserError
from schema.ids import uuid7
from schema.tables.access import ApiKey, Operation, Scope
from tasks.access import queries
from tasks.access.names import clean_name, quoted, shell_word, storable
from tasks.access.rights import require
from tasks.access.trail import audit
from tasks.access.values import Actor

_FORM: Final = re.compile(r"mwk_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")


class Unauthenticated(UserError):
    """No API key, or none that is known and in force."""

    code = "unauthenticated"


class ScopeMissing(PermissionDenied):
    """The API key is not meant for this."""

    code = "scope_missing"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls with a key: its user, and what the key is for."""

    actor: Actor
    key: UUID
    scopes: frozenset[str]
    unnoted: bool
    """Its last use that was noted is a minute old; see `note_use`."""

    def require(self, scope: Scope) -> None:
        """Raises `ScopeMissing`."""
        if scope not in self.scopes:
            raise ScopeMissing(
                f"this key has no scope {scope}. Make one that has: "
                f"mailwright key add {shell_word(self.actor.name)} --scope {scope}"
            )


def add_key(
    actor: Actor,
    session: Session,
    user: str,
    scopes: Sequence[Scope],
    *,
    note: str | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Make a key for ``user`` and return its row and the key itself, which is never seen again.

    One's own, or anyone's with CanManageAdministration.
    """
    name, user_id = _user(actor, session, user, "make API keys of others")
    if not scopes:
        raise UserError(f"a key needs a scope. There are: {', '.join(Scope)}.")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise UserError("the key would have expired already. Give a time to come.")
    uid = uuid7()
    token = f"mwk_{uid.hex}_{secrets.token_urlsafe(32)}"
    row = ApiKey(
        uid=uid,
        user_id=user_id,
        digest=_digest(token),
        scopes=sorted(set(scopes)),
        note=None if note is None else clean_name(note, "key"),
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    changes = {"scopes": (None, row.scopes), "expires_at": (None, expires_at and expires_at.isoformat())}
    audit(session, actor, "key.added", "key", uid, name, changes)
    return row, token


def list_keys(actor: Actor, session: Session, user: str | None = None) -> Sequence[Row[tuple[object, ...]]]:
    """Rows of uid, user, scopes, note, created_at, expires_at, last_used_at: of one user, or of all."""
    user_id = None
    if user is None:
        require(session, actor, Operation.MANAGE_ADMINISTRATION, "list the API keys of others")
    else:
        _, user_id = _user(actor, session, user, "list the API keys of others")
    return session.execute(queries.KEYS, {"user_id": user_id}).all()


def remove_key(actor: Actor, session: Session, uid: UUID) -> str:
    """Revoke a key, at once; returns its user's name. Raises `NotFound`."""
    row = session.execute(queries.KEY, {"uid": uid}).one_or_none()
    if row is None:
        raise NotFound(f"there is no key {uid}. List them: mailwright key list")
    name, _ = _user(actor, session, row.name, "remove API keys of others")
    session.execute(queries.REMOVE_KEY, {"uid": uid})
    audit(session, actor, "key.removed", "key", uid, name, {"scopes": (row.scopes, None)})
    return name


def authenticate(session: Session, token: str) -> Caller:
    """Whose key this is. Raises `Unauthenticated`, the same for every reason but an end that has passed."""
    form = _FORM.fullmatch(token)
    row = None
    if form is not None:
        row = session.execute(queries.KEY, {"uid": UUID(form[1])}).one_or_none()
    if row is None or not hmac.compare_digest(row.digest, _digest(token)):
        raise Unauthenticated(
            "no such API key. Send one as `Authorization: Bearer mwk_…`; make one: mailwright key add"
        )
    if row.expired:
        raise Unauthenticated("this API key has expired. Make another: mailwright key add")
    return Caller(Actor(row.name), row.uid, frozenset(row.scopes), row.unnoted)


def note_use(session: Session, caller: Caller) -> None:
    """Store that the key is in use now."""
    session.execute(queries.NOTE_USE, {"uid": caller.key})


def parse_scope(text: str) -> Scope:
    """A scope by name. Raises `UserError` listing what there is."""
    try:
        return Scope(text.strip().lower())
    except ValueError:
        raise UserError(f"there is no scope {quoted(text)}. There are: {', '.join(Scope)}.") from None


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()


def _user(actor: Actor, session: Session, name: str, purpose: str) -> tuple[str, int]:
    """A user by name, in any case of letters: oneself, or whom one may administer."""
    if name.strip().lower() != actor.name.lower():
        require(session, actor, Operation.MANAGE_ADMINISTRATION, purpose)
    row = None
    if storable(name):
        row = session.execute(queries.USER, {"name": name.strip()}).one_or_none()
    if row is None:
        raise NotFound(f"there is no user {quoted(name)}. List them: mailwright user list")
    return row.name, row.id
