"""Mail on its way out: the doors of the queue, and the dispatcher that empties it."""

from tasks.outbound.dispatch import Dispatched, dispatch
from tasks.outbound.engine import Listed, enqueue, listing, sent_content, show, undelivered
from tasks.outbound.states import FINAL
from tasks.outbound.values import Accepted
from tasks.outbound.wishes import cancel, hold, release, retry

__all__ = [
    "FINAL",
    "Accepted",
    "Dispatched",
    "Listed",
    "cancel",
    "dispatch",
    "enqueue",
    "hold",
    "listing",
    "release",
    "retry",
    "sent_content",
    "show",
    "undelivered",
]
