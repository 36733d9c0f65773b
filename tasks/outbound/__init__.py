"""Mail on its way out: the doors of the queue, and the dispatcher that empties it."""

from tasks.outbound.compose import ATTEMPT_HEADER
from tasks.outbound.dispatch import Dispatched, dispatch
from tasks.outbound.doubt import Verdict, copies_found, look_for_evidence, settle, sought, wanted
from tasks.outbound.engine import Listed, enqueue, enqueue_many, listing, sent_content, show, undelivered
from tasks.outbound.pausing import pause, resume
from tasks.outbound.reports import settle_reports
from tasks.outbound.restores import held as sending_held
from tasks.outbound.restores import release as release_sending
from tasks.outbound.states import FINAL
from tasks.outbound.suppression import Suppression
from tasks.outbound.suppression import add as add_suppression
from tasks.outbound.suppression import listed as suppressed
from tasks.outbound.suppression import remove as remove_suppression
from tasks.outbound.values import Accepted, Order
from tasks.outbound.why import Why, why
from tasks.outbound.wishes import bump, cancel, expire, hold, release, reschedule, retry

__all__ = [
    "ATTEMPT_HEADER",
    "FINAL",
    "Accepted",
    "Dispatched",
    "Listed",
    "Order",
    "Suppression",
    "Verdict",
    "Why",
    "add_suppression",
    "bump",
    "cancel",
    "copies_found",
    "dispatch",
    "enqueue",
    "enqueue_many",
    "expire",
    "hold",
    "listing",
    "look_for_evidence",
    "pause",
    "release",
    "release_sending",
    "remove_suppression",
    "reschedule",
    "resume",
    "retry",
    "sending_held",
    "sent_content",
    "settle",
    "settle_reports",
    "show",
    "sought",
    "suppressed",
    "undelivered",
    "wanted",
    "why",
]
