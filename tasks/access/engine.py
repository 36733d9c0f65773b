"""Users, roles, membership and the ordered operation permissions.

Every change asks for ``CanManageAdministration``, is audited, and is refused where afterwards no user
would hold ``CanManageAdministration``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Row, delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from config.errors import Conflict, NotFound, UserError
from schema.tables.access import Operation, Role, User
from tasks.access import queries
from tasks.access.names import clean_name, quoted, storable
from tasks.access.rights import require
from tasks.access.trail import audit
from tasks.access.values import ADMINISTRATOR, SYSTEM, Actor, Grantee, GranteeKind, GrantLine

_ADMINISTER = Operation.MANAGE_ADMINISTRATION
_Named = TypeVar("_Named", User, Role)


def add_user(actor: Actor, session: Session, name: str, roles: Sequence[str] = ()) -> User:
    """Add a user, at once in ``roles``. Raises `Conflict` for a taken name, in any case of letters."""
    _begin_change(session, actor, "add a user")
    name = clean_name(name, "user")
    if name.lower() == SYSTEM.name:
        raise UserError(f'the name "{SYSTEM.name}" is reserved for mailwright itself. Choose another.')
    joined = [_find(session, Role, role) for role in roles]
    with _taken(f"there is already a user {quoted(name)}. List them: mailwright user list"):
        user = _insert(session, User(name=name))
    for role in joined:
        session.execute(queries.ADD_MEMBER, {"user_id": user.id, "role_id": role.id})
    names = [role.name for role in joined]
    audit(session, actor, "user.added", "user", user.uid, user.name, {"roles": (None, names)})
    _keep_an_administrator(session)
    return user


def remove_user(actor: Actor, session: Session, name: str) -> User:
    """Remove a user with its memberships and grants. The built-in administrator stays, and so does
    an owner of mailboxes (`Conflict`)."""
    _begin_change(session, actor, "remove a user")
    user = _find(session, User, name)
    if user.name.lower() == ADMINISTRATOR:
        raise Conflict(f'the user "{ADMINISTRATOR}" is built in and cannot be removed.')
    owned: int = session.execute(queries.MAILBOXES_OWNED, {"user_id": user.id}).scalar_one()
    if owned:
        raise Conflict(
            f"user {quoted(user.name)} owns {owned} mailbox{'es' if owned > 1 else ''}. "
            "Give them to another user first: mailwright mailbox edit ADDRESS --owner USER"
        )
    roles = list(session.execute(queries.ROLES_OF, {"user_id": user.id}).scalars())
    with _taken(f"user {quoted(user.name)} was given a mailbox just now; look again."):
        session.execute(delete(User).where(User.id == user.id))
    session.execute(queries.RENUMBER)
    audit(session, actor, "user.removed", "user", user.uid, user.name, {"roles": (roles, None)})
    _keep_an_administrator(session)
    return user


def list_users(actor: Actor, session: Session) -> Sequence[Row[tuple[UUID, str, object, list[str]]]]:
    """Rows of uid, name, created_at, roles, by name."""
    require(session, actor, _ADMINISTER, "list users")
    return session.execute(queries.USERS).all()


def add_role(actor: Actor, session: Session, name: str) -> Role:
    """Add an empty role. Raises `Conflict` for a taken name, in any case of letters."""
    _begin_change(session, actor, "add a role")
    name = clean_name(name, "role")
    with _taken(f"there is already a role {quoted(name)}. List them: mailwright role list"):
        role = _insert(session, Role(name=name))
    audit(session, actor, "role.added", "role", role.uid, role.name)
    return role


def remove_role(actor: Actor, session: Session, name: str) -> Role:
    """Remove a role with its memberships and grants."""
    _begin_change(session, actor, "remove a role")
    role = _find(session, Role, name)
    members = list(session.execute(queries.MEMBERS_OF, {"role_id": role.id}).scalars())
    session.execute(delete(Role).where(Role.id == role.id))
    session.execute(queries.RENUMBER)
    audit(session, actor, "role.removed", "role", role.uid, role.name, {"users": (members, None)})
    _keep_an_administrator(session)
    return role


def list_roles(actor: Actor, session: Session) -> Sequence[Row[tuple[UUID, str, object, list[str]]]]:
    """Rows of uid, name, created_at, users, by name."""
    require(session, actor, _ADMINISTER, "list roles")
    return session.execute(queries.ROLES).all()


def assign_role(actor: Actor, session: Session, role: str, user: str) -> bool:
    """Put a user in a role; False where the user was in it already."""
    return _membership(actor, session, role, user, join=True)


def unassign_role(actor: Actor, session: Session, role: str, user: str) -> bool:
    """Take a user out of a role; False where the user was not in it."""
    return _membership(actor, session, role, user, join=False)


def list_grants(actor: Actor, session: Session) -> list[GrantLine]:
    """Operation permissions in the order in which they decide."""
    require(session, actor, _ADMINISTER, "list operation permissions")
    return [line for line, _ in _lines(session)]


def grant(
    actor: Actor,
    session: Session,
    operation: Operation,
    grantee: Grantee,
    *,
    allow: bool = True,
    position: int | None = None,
) -> GrantLine:
    """Insert a line at ``position`` (from 1), by default at the end; what stands there moves down.

    With ``allow`` False the line denies. Raises `UserError` for a position past the end.
    """
    _begin_change(session, actor, "change operation permissions")
    holder = _holder(session, grantee)
    count: int = session.execute(queries.COUNT_LINES).scalar_one()
    place = count + 1 if position is None else position
    if not 1 <= place <= count + 1:
        raise UserError(f"the position must be 1 to {count + 1}; the list has {count} lines.")
    session.execute(queries.SHIFT_DOWN, {"position": place})
    uid: UUID = session.execute(
        queries.INSERT_LINE,
        {
            "position": place,
            "operation": operation.value,
            "user_id": holder.id if grantee.kind is GranteeKind.USER else None,
            "role_id": holder.id if grantee.kind is GranteeKind.ROLE else None,
            "allow": allow,
        },
    ).scalar_one()
    line = GrantLine(place, operation, Grantee(grantee.kind, holder.name), allow)
    audit(session, actor, "grant.added", "grant", uid, operation, {"line": (None, _plain(line))})
    _keep_an_administrator(session)
    return line


def remove_grant(actor: Actor, session: Session, position: int) -> GrantLine:
    """Take the line at ``position`` out; those below move up."""
    _begin_change(session, actor, "change operation permissions")
    line, uid = _line_at(session, position)
    session.execute(queries.DELETE_LINE, {"position": position})
    session.execute(queries.RENUMBER)
    audit(session, actor, "grant.removed", "grant", uid, line.operation, {"line": (_plain(line), None)})
    _keep_an_administrator(session)
    return line


def move_grant(actor: Actor, session: Session, position: int, target: int) -> GrantLine:
    """Take the line at ``position`` to ``target``; those between step aside."""
    _begin_change(session, actor, "change operation permissions")
    line, uid = _line_at(session, position)
    _line_at(session, target)
    session.execute(queries.MOVE_LINE, {"position": position, "target": target})
    audit(session, actor, "grant.moved", "grant", uid, line.operation, {"position": (position, target)})
    _keep_an_administrator(session)
    return GrantLine(target, line.operation, line.grantee, line.allow)


def _begin_change(session: Session, actor: Actor, purpose: str) -> None:
    session.execute(queries.LOCK)
    require(session, actor, _ADMINISTER, purpose)


def _keep_an_administrator(session: Session) -> None:
    if not session.execute(queries.HAS_HOLDER, {"operation": _ADMINISTER.value}).scalar_one():
        raise Conflict(
            f"this would leave no user who holds {_ADMINISTER}: the last administrator cannot be removed. "
            "Grant it to another user first."
        )


def _membership(actor: Actor, session: Session, role_name: str, user_name: str, *, join: bool) -> bool:
    _begin_change(session, actor, "change who is in a role")
    role, user = _find(session, Role, role_name), _find(session, User, user_name)
    statement = queries.ADD_MEMBER if join else queries.REMOVE_MEMBER
    changed = session.execute(statement, {"user_id": user.id, "role_id": role.id}).first() is not None
    if changed:
        action = "role.assigned" if join else "role.unassigned"
        pair = (None, user.name) if join else (user.name, None)
        audit(session, actor, action, "role", role.uid, role.name, {"user": pair})
        _keep_an_administrator(session)
    return changed


def _find(session: Session, kind: type[_Named], name: str) -> _Named:
    noun = kind.__name__.lower()
    found: _Named | None = None
    if storable(name):
        found = session.scalars(
            select(kind).where(func.lower(kind.name) == func.lower(name.strip()))
        ).one_or_none()
    if found is None:
        raise NotFound(f"there is no {noun} {quoted(name)}. List them: mailwright {noun} list")
    return found


def _holder(session: Session, grantee: Grantee) -> User | Role:
    match grantee.kind:
        case GranteeKind.USER:
            return _find(session, User, grantee.name)
        case GranteeKind.ROLE:
            return _find(session, Role, grantee.name)


def _lines(session: Session) -> list[tuple[GrantLine, UUID]]:
    lines = []
    for row in session.execute(queries.LINES):
        grantee = (
            Grantee(GranteeKind.USER, row.user_name)
            if row.role_name is None
            else Grantee(GranteeKind.ROLE, row.role_name)
        )
        lines.append((GrantLine(row.position, Operation(row.operation), grantee, row.allow), row.uid))
    return lines


def _line_at(session: Session, position: int) -> tuple[GrantLine, UUID]:
    lines = _lines(session)
    if not 1 <= position <= len(lines):
        raise NotFound(
            f"Operation permissions has no line {position}; it has {len(lines)}. "
            "See them: mailwright grant list"
        )
    return lines[position - 1]


def _plain(line: GrantLine) -> dict[str, object]:
    return {
        "position": line.position,
        line.grantee.kind.value: line.grantee.name,
        "allow": line.allow,
    }


def _insert(session: Session, row: _Named) -> _Named:
    session.add(row)
    session.flush()
    return row


@contextmanager
def _taken(sentence: str) -> Iterator[None]:
    """Tell a constraint's refusal, which also ends a race, in our words."""
    try:
        yield
    except IntegrityError:
        raise Conflict(sentence) from None
