"""SMTP as a client: one held session, one message at a time, an outcome for every recipient."""

from tasks.wire.smtp.replies import classify, login_refused, retry_after
from tasks.wire.smtp.session import SmtpSession
from tasks.wire.smtp.values import (
    Delivery,
    Envelope,
    Exchange,
    Features,
    Notify,
    Outcome,
    RecipientResult,
    Reply,
    Reports,
    SessionFailed,
    Stage,
)

__all__ = [
    "Delivery",
    "Envelope",
    "Exchange",
    "Features",
    "Notify",
    "Outcome",
    "RecipientResult",
    "Reply",
    "Reports",
    "SessionFailed",
    "SmtpSession",
    "Stage",
    "classify",
    "login_refused",
    "retry_after",
]
