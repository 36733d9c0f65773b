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
from tasks.outbound.templates import Template
from tasks.outbound.templates import listed as templates
from tasks.outbound.templates import preview as preview_template
from tasks.outbound.templates import remove as remove_template
from tasks.outbound.templates import show as show_template
from tasks.outbound.templates import store as store_template
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
    "Template",
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
    "preview_template",
    "release",
    "release_sending",
    "remove_suppression",
    "remove_template",
    "reschedule",
    "resume",
    "retry",
    "sending_held",
    "sent_content",
    "settle",
    "settle_reports",
    "show",
    "show_template",
    "sought",
    "store_template",
    "suppressed",
    "templates",
    "undelivered",
    "wanted",
    "why",
]
