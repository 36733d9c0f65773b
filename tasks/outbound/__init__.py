"""Mail on its way out: the doors of the queue, and the dispatcher that empties it."""

from tasks.outbound.dispatch import Dispatched, dispatch
from tasks.outbound.engine import (
    Listed,
    cancel,
    enqueue,
    listing,
    retry,
    sent_content,
    show,
    undelivered,
)
from tasks.outbound.states import FINAL
from tasks.outbound.values import Accepted

__all__ = [
    "FINAL",
    "Accepted",
    "Dispatched",
    "Listed",
    "cancel",
    "dispatch",
    "enqueue",
    "listing",
    "retry",
    "sent_content",
    "show",
    "undelivered",
]
