"""The audit trail: who changed what, and when, in the transaction of the change."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from config.errors import UserError
from schema.tables.access import AuditEntry, Operation
from tasks.access import queries
from tasks.access.names import storable
from tasks.access.rights import require_any
from tasks.access.values import Actor

_MOST_ENTRIES = 10_000


def audit(
    session: Session,
    actor: Actor,
    action: str,
    kind: str,
    uid: UUID | None,
    name: str,
    changes: Mapping[str, tuple[Any, Any]] | None = None,
) -> None:
    """Note a change in the session's transaction.

    ``action`` is past tense with its kind (``provider.added``), ``changes`` maps a field to its value
    before and after. Whoever calls gives `tasks.access.MASKED` in place of any secret.
    """
    session.execute(
        queries.INSERT_AUDIT,
        {
            "actor": actor.name,
            "action": action,
            "kind": kind,
            "uid": uid,
            "name": name,
            "changes": json.dumps({field: list(pair) for field, pair in (changes or {}).items()}),
        },
    )


def list_audit(
    actor: Actor, session: Session, limit: int = 50, kind: str | None = None, by: str | None = None
) -> Sequence[AuditEntry]:
    """The latest entries, newest first; of one ``kind``, and ``by`` one user, where given."""
    require_any(
        session, actor, (Operation.MANAGE_ADMINISTRATION, Operation.VIEW_OPERATIONS), "read the audit trail"
    )
    if not 1 <= limit <= _MOST_ENTRIES:
        raise UserError(f"the limit must be 1 to {_MOST_ENTRIES} entries.")
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if kind is not None:
        query = query.where(AuditEntry.kind == (kind if storable(kind) else ""))
    if by is not None:
        query = query.where(func.lower(AuditEntry.actor) == func.lower(by if storable(by) else ""))
    return session.scalars(query).all()
