"""What an attempt makes of a message: pure rules."""

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from schema.tables.outbound import RecipientState, State
from tasks.wire.smtp import Delivery, Outcome, Reply, retry_after

FIRST_RETRY: Final = 60.0
LAST_RETRY: Final = 4 * 3600.0
"""Seconds. Four hours stay within what senders of our size are expected to keep (RFC 5321 §4.5.4.1)."""
FIRST_RECONNECT: Final = 5.0
LAST_RECONNECT: Final = 900.0

_RECIPIENT: Final[Mapping[Outcome, RecipientState]] = {
    Outcome.SENT: RecipientState.SENT,
    Outcome.DEFERRED: RecipientState.DEFERRED,
    Outcome.FAILED: RecipientState.FAILED,
    Outcome.UNCERTAIN: RecipientState.UNCERTAIN,
}


@dataclass(frozen=True, slots=True)
class Told:
    """One recipient after an attempt."""

    address: str
    state: RecipientState
    code: int | None
    reply: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One message after an attempt. ``pause``: seconds until the next try of the deferred recipients."""

    state: State
    recipients: tuple[Told, ...]
    pause: float | None
    code: int | None
    reply: str | None


def judge(delivery: Delivery, attempts: int, already_sent: bool, draw: float | None = None) -> Verdict:
    """Combine the recipients' outcomes.

    Doubt about any of them stops the message until it is settled; else any deferral brings it back, for those
    recipients alone; else it is sent where anyone got it, in this attempt or before (``already_sent``).
    ``attempts`` counts this one.
    """
    told = tuple(
        Told(result.address, _RECIPIENT[result.outcome], *words(result.reply, delivery.reason))
        for result in delivery.recipients
    )
    found = {recipient.state for recipient in told}
    if RecipientState.UNCERTAIN in found:
        state = State.UNCERTAIN
    elif RecipientState.DEFERRED in found or not told:
        state = State.DEFERRED
    elif RecipientState.SENT in found or already_sent:
        state = State.SENT
    else:
        state = State.FAILED
    hint = max(
        (wait for result in delivery.recipients if (wait := retry_after(result.reply, delivery.stage))),
        default=None,
    )
    pause = (hint or retry_pause(attempts, draw)) if state is State.DEFERRED else None
    code, reply = words(delivery.reply, delivery.reason)
    return Verdict(state, told, pause, code, reply)


def settled(recipients: Collection[RecipientState]) -> State:
    """What a message in doubt becomes, once something is known of some of its recipients: whom nobody knows
    of keeps it in doubt; who was deferred meanwhile, or is to get it again, gets it now."""
    if RecipientState.UNCERTAIN in recipients:
        return State.UNCERTAIN
    if not {RecipientState.PENDING, RecipientState.DEFERRED}.isdisjoint(recipients):
        return State.QUEUED
    if not {RecipientState.SENT, RecipientState.BOUNCED}.isdisjoint(recipients):
        return State.SENT
    return State.FAILED


def words(reply: Reply | None, reason: str) -> tuple[int | None, str | None]:
    """A reply's code and words, or our own where there was none."""
    if reply is None:
        return None, reason or None
    return reply.code, str(reply)


def retry_pause(attempts: int, draw: float | None = None) -> float:
    """Seconds until the next attempt: 1 min doubling to 4 h, the upper half at random."""
    return _backoff(FIRST_RETRY, LAST_RETRY, attempts, draw)


def reconnect_pause(failures: int, draw: float | None = None) -> float:
    """Seconds until a lane whose server cannot be reached is tried again: 5 s doubling to 15 min."""
    return _backoff(FIRST_RECONNECT, LAST_RECONNECT, failures, draw)


def _backoff(first: float, last: float, count: int, draw: float | None) -> float:
    full = min(last, first * 2.0 ** min(max(count, 1) - 1, 30))
    return full * (0.5 + 0.5 * (random.random() if draw is None else draw))


def event_of(state: RecipientState) -> str:
    """The event that tells of recipients who came into this state."""
    match state:
        case RecipientState.SENT:
            return "outbound.sent"
        case RecipientState.DEFERRED | RecipientState.PENDING:
            return "outbound.deferred"
        case RecipientState.FAILED:
            return "outbound.failed"
        case RecipientState.UNCERTAIN:
            return "outbound.uncertain"
        case RecipientState.BOUNCED:
            return "outbound.bounced"
        case other:
            assert_never(other)
