"""Meeting a right: every engine asks here, below every interface."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from config.errors import NotFound, PermissionDenied
from schema.tables.access import Operation
from tasks.access import queries
from tasks.access.names import quoted, shell_word, storable
from tasks.access.values import LABELS, Actor, Grantee, GranteeKind, GrantLine, Verdict


def require(session: Session, actor: Actor, operation: Operation, purpose: str = "") -> None:
    """Return where ``actor`` holds ``operation``; the system holds all.

    Raises `PermissionDenied` naming the user, the operation, its label and what decided. ``purpose``
    completes "may not …".
    """
    require_any(session, actor, (operation,), purpose)


def require_any(session: Session, actor: Actor, operations: Sequence[Operation], purpose: str = "") -> None:
    """Like `require`, content with any one of ``operations``."""
    if actor.system:
        return
    refusals: list[Verdict] = []
    for operation in operations:
        verdict = _verdict(session, actor.name, operation)
        if verdict is None:
            raise PermissionDenied(
                f"there is no user {quoted(actor.name)}. "
                f"An administrator can add one: mailwright user add {shell_word(actor.name)}"
            )
        if verdict.allowed:
            return
        refusals.append(verdict)
    needs = " or ".join(f'{v.operation} ("{LABELS[v.operation]}"; {v.reason})' for v in refusals)
    first = " --position 1" if refusals[0].line is not None else ""
    raise PermissionDenied(
        f"user {quoted(actor.name)} may not {purpose or 'do this'}: that needs {needs}.\n"
        f"An administrator can grant it: mailwright grant add {operations[0]} "
        f"--user {shell_word(actor.name)}{first}"
    )


def allowed(session: Session, actor: Actor, operation: Operation) -> bool:
    """Whether ``actor`` holds ``operation``; an unknown user holds none."""
    if actor.system:
        return True
    verdict = _verdict(session, actor.name, operation)
    return verdict is not None and verdict.allowed


def user_id(session: Session, actor: Actor) -> int | None:
    """The row of the actor's user; None for the system and for an unknown user."""
    if actor.system or not storable(actor.name):
        return None
    found: int | None = session.execute(queries.USER_ID, {"name": actor.name}).scalar()
    return found


def explain(actor: Actor, session: Session, user: str, operation: Operation) -> Verdict:
    """Whether ``user`` holds ``operation`` and which line decides; anyone may ask about themselves.

    Raises `NotFound` for an unknown user.
    """
    if user.lower() != actor.name.lower():
        require(session, actor, Operation.MANAGE_ADMINISTRATION, "check the rights of others")
    verdict = _verdict(session, user, operation)
    if verdict is None:
        raise NotFound(f"there is no user {quoted(user)}. List them: mailwright user list")
    return verdict


def _verdict(session: Session, name: str, operation: Operation) -> Verdict | None:
    """None: no such user."""
    if not storable(name):
        return None
    row = session.execute(queries.DECIDING_LINE, {"name": name, "operation": operation.value}).one_or_none()
    if row is None:
        return None
    if row.position is None:
        return Verdict(row.name, operation, None)
    grantee = Grantee(GranteeKind.USER, row.name) if row.role is None else Grantee(GranteeKind.ROLE, row.role)
    return Verdict(row.name, operation, GrantLine(row.position, operation, grantee, row.allow))
