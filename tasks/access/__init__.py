"""Who may do what: users, roles, ordered operation permissions, and the audit trail."""

from schema.tables.access import Operation
from tasks.access.values import SYSTEM, Actor

__all__ = ["SYSTEM", "Actor", "Operation"]
