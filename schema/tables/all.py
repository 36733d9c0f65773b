"""Every table, one module a room. ``METADATA`` is what migrations are compared with."""

from schema.tables import access, events, mailboxes, outbound, providers, schedule, sync, watch
from schema.tables.base import METADATA, Base

__all__ = [
    "METADATA",
    "Base",
    "access",
    "events",
    "mailboxes",
    "outbound",
    "providers",
    "schedule",
    "sync",
    "watch",
]
