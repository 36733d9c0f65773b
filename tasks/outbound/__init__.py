"""Mail on its way out: the doors of the queue, and the dispatcher that empties it."""

from tasks.outbound.compose import ATTEMPT_HEADER
from tasks.outbound.dispatch import Dispatched, dispatch
from tasks.outbound.doubt import Verdict, copies_found, look_for_evidence, settle, sought, wanted
from tasks.outbound.engine import Listed, enqueue, listing, sent_content, show, undelivered
from tasks.outbound.reports import settle_reports
from tasks.outbound.states import FINAL
from tasks.outbound.suppression import Suppression
from tasks.outbound.suppression import add as add_suppression
from tasks.outbound.suppression import listed as suppressed
from tasks.outbound.suppression import remove as remove_suppression
from tasks.outbound.values import Accepted
from tasks.outbound.wishes import cancel, hold, release, retry

__all__ = [
    "ATTEMPT_HEADER",
    "FINAL",
    "Accepted",
    "Dispatched",
    "Listed",
    "Suppression",
    "Verdict",
    "add_suppression",
    "cancel",
    "copies_found",
    "dispatch",
    "enqueue",
    "hold",
    "listing",
    "look_for_evidence",
    "release",
    "remove_suppression",
    "retry",
    "sent_content",
    "settle",
    "settle_reports",
    "show",
    "sought",
    "suppressed",
    "undelivered",
    "wanted",
]
