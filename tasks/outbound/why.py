"""Why a message is not being sent now, in one sentence, and when it will be.

over ──> over        in doubt ──> uncertain        held ──> held        a worker has it ──> in_hand
restored database, mailbox or provider not ready, sending paused ──> stopped
host left alone, server down ──> unreachable        its time ──> waiting        now ──> due
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from config.settings import Settings
from schema.tables.outbound import State
from schema.tables.providers import SentCopy
from tasks import mailboxes
from tasks.access import Actor
from tasks.mailboxes import NotReady, Protocol
from tasks.outbound import restores, wishes
from tasks.outbound.states import FINAL, WAITING

LATE_SECONDS: Final = 10.0
"""A due message that nobody took for so long has a reason."""

TURN = text("""
    -- A message's turn and its lane's. Indexes: outbox_pkey, outbox_lanes_pkey, outbox_due,
    -- outbox_lanes_busy, attempts_outbound_id_idx, breakers_pkey.
    SELECT now() AS now, o.state, o.due_at, o.ended_at, o.expires_at, o.held_for, o.last_reply,
           o.cancel_asked, m.address, p.sent_copy, p.resend_if_absent, p.messages_per_minute,
           p.connections_per_account, p.connections_per_host,
           l.mailbox_id IS NULL OR NOT l.enabled AS off, l.next_due_at, l.lease_owner,
           coalesce(l.lease_until > now(), false) AS leased, l.last_error, l.failures, l.host,
           l.paused_at, l.paused_until, l.paused_for,
           l.paused_at IS NOT NULL AND coalesce(l.paused_until > now(), true) AS paused,
           CASE WHEN l.window_start > now() - interval '1 minute' THEN l.window_sent ELSE 0 END
               AS window_sent,
           b.opened_at, b.retry_at AS probe_at, b.last_error AS host_error,
           CASE WHEN b.slow_until > now() THEN b.slow_until END AS slow_until,
           (SELECT count(*) FROM mailwright.outbox AS e
            WHERE e.mailbox_id = o.mailbox_id AND e.state IN ('queued', 'deferred') AND e.due_at <= now()
              AND (-e.priority, e.due_at, e.id) < (-o.priority, o.due_at, o.id)) AS ahead,
           (SELECT sum(c.connections) FROM mailwright.outbox_lanes AS c
            WHERE c.connections > 0 AND c.account = l.account AND c.mailbox_id <> l.mailbox_id
              AND greatest(c.lease_until, c.resting_until) > now()) AS of_account,
           (SELECT sum(c.connections) FROM mailwright.outbox_lanes AS c
            WHERE c.connections > 0 AND c.host = l.host AND c.mailbox_id <> l.mailbox_id
              AND greatest(c.lease_until, c.resting_until) > now()) AS of_host,
           (SELECT max(t.served_at) FROM mailwright.outbox_turns AS t) AS served_at,
           a.ended_at AS doubted_at, a.evidence
    FROM mailwright.outbox AS o
    JOIN mailwright.mailboxes AS m ON m.id = o.mailbox_id
    JOIN mailwright.providers AS p ON p.id = m.provider_id
    LEFT JOIN mailwright.outbox_lanes AS l ON l.mailbox_id = o.mailbox_id
    LEFT JOIN mailwright.breakers AS b ON b.protocol = 'smtp' AND b.host = l.host
    LEFT JOIN LATERAL (
        SELECT ended_at, evidence FROM mailwright.attempts
        WHERE outbound_id = o.id AND outcome = 'uncertain' ORDER BY number DESC LIMIT 1
    ) AS a ON true
    WHERE o.id = :id
""")


@dataclass(frozen=True, slots=True)
class Why:
    """``state``: ``over``, ``uncertain``, ``held``, ``in_hand``, ``stopped``, ``unreachable``, ``waiting`` or
    ``due``; ``next_at``: when it is tried next, None where nobody knows."""

    id: UUID
    state: str
    reason: str
    next_at: datetime | None


def why(actor: Actor, session: Session, uid: UUID, settings: Settings) -> Why:
    """Say why. Raises `NotFound`, `PermissionDenied`."""
    row = wishes.found(actor, session, uid, viewing=True)
    turn = session.execute(TURN, {"id": row.id}).one()
    stopped: NotReady | None = None
    restored: str | None = None
    if State(turn.state) in WAITING:
        restored = restores.held(session, settings)
        stopped = mailboxes.not_ready(session, row.mailbox_id, Protocol.SMTP)
    state, reason, next_at = said(turn, restored, stopped, settings.sent_search_grace_seconds)
    return Why(uid, state, reason, next_at)


Said = tuple[str, str, datetime | None]


def said(turn: Row[Any], restored: str | None, stopped: NotReady | None, grace: float) -> Said:
    """The sentence; ``turn`` is a row of `TURN`, ``grace`` in seconds."""
    match State(turn.state):
        case state if state in FINAL:
            words = f": {turn.last_reply.rstrip('.')}" if turn.last_reply else ""
            return "over", f"It is {state} since {_clock(turn.ended_at)}{words}.", None
        case State.UNCERTAIN:
            return _doubt(turn, grace)
        case State.HELD:
            return "held", f"It is held by {turn.held_for}; let it go: mailwright outbox release ID", None
        case State.ARMED:
            return _in_hand(turn)
        case _:
            return _waits(turn, restored, stopped)


def _doubt(turn: Row[Any], grace: float) -> Said:
    head = "Nobody knows whether it arrived: the server's last answer is lost"
    settle = "say what became of it: mailwright outbox settle ID sent|failed|resend"
    if turn.evidence:
        return "uncertain", f"{head}. {turn.evidence}; {settle}", None
    if turn.sent_copy != SentCopy.SERVER or turn.doubted_at is None:
        return "uncertain", f"{head}. A copy in Sent or a delivery report would settle it, or {settle}", None
    at = turn.doubted_at + timedelta(seconds=grace)
    then = "it is sent again" if turn.resend_if_absent else "a person is asked"
    return "uncertain", f"{head}. Sent is searched at {_clock(at)}; if it is not there, {then}.", at


def _in_hand(turn: Row[Any]) -> Said:
    cancel = " A wish to cancel it is met if it comes back from there." if turn.cancel_asked else ""
    if turn.leased:
        return "in_hand", f"{turn.lease_owner} has it in hand now.{cancel}", None
    return "in_hand", f"A worker had it in hand and died; another sorts that out within a tick.{cancel}", None


def _waits(turn: Row[Any], restored: str | None, stopped: NotReady | None) -> Said:
    if restored is not None:
        return "stopped", f"{restored} Let it send again: mailwright outbox release", None
    if stopped is not None:
        return "stopped", str(stopped), stopped.until
    if turn.paused:
        ends = f" until {_clock(turn.paused_until)}" if turn.paused_until else ""
        reason = f"The sending of {turn.address} is paused{ends} by {turn.paused_for}"
        return "stopped", f"{reason}; resume it: mailwright outbox resume {turn.address}", turn.paused_until
    if turn.off:
        return "stopped", f"{turn.address} does not send now: mailwright mailbox test {turn.address}", None
    if turn.due_at > turn.now:
        if turn.state == State.DEFERRED:
            words = (turn.last_reply or "the server asked to come later").rstrip(".")
            return (
                "waiting",
                f"It was put off ({words}); the next try is at {_clock(turn.due_at)}.",
                turn.due_at,
            )
        return "waiting", f"It is not to go before {_clock(turn.due_at)}.", turn.due_at
    if turn.opened_at is not None:
        error = (turn.host_error or "unknown").rstrip(".")
        reason = f"{turn.host} failed for everyone and is left alone since {_clock(turn.opened_at)} ({error})"
        return "unreachable", f"{reason}; it is tried again at {_clock(turn.probe_at)}.", turn.probe_at
    return _due(turn)


def _due(turn: Row[Any]) -> Said:
    ahead = f" {turn.ahead} of the mailbox go before it." if turn.ahead else ""
    if turn.leased:
        return "due", f"{turn.lease_owner} sends from {turn.address} now.{ahead}", turn.due_at
    later = turn.next_due_at is not None and turn.next_due_at > turn.now
    if later and turn.last_error:
        error = turn.last_error.rstrip(".")
        reason = f"The last session failed ({error}); the next one is at {_clock(turn.next_due_at)}."
        return "unreachable", reason + ahead, turn.next_due_at
    if later and turn.messages_per_minute is not None and turn.window_sent >= turn.messages_per_minute:
        limit = f"The {turn.messages_per_minute} messages a minute of {turn.address} are used up"
        return "waiting", f"{limit}; the next may go at {_clock(turn.next_due_at)}.{ahead}", turn.next_due_at
    if (turn.of_account or 0) >= turn.connections_per_account:
        cap = f"the {turn.connections_per_account} connections of its account are taken"
        return "due", f"It is due, and {cap} by other mailboxes.{ahead}", turn.due_at
    if (turn.of_host or 0) >= turn.connections_per_host:
        cap = f"the {turn.connections_per_host} connections to {turn.host} are taken"
        return "due", f"It is due, and {cap} by other mailboxes.{ahead}", turn.due_at
    if turn.slow_until is not None:
        slow = f"{turn.host} made us wait for answers, so until {_clock(turn.slow_until)} it gets at most a"
        return "due", f"It is due, and {slow} quarter of a worker's slots.{ahead}", turn.due_at
    if (turn.now - turn.due_at).total_seconds() < LATE_SECONDS:
        return "due", f"It is due now; a worker takes it within a tick.{ahead}", turn.due_at
    lately = "never took any" if turn.served_at is None else f"took some last at {_clock(turn.served_at)}"
    reason = f"It is due since {_clock(turn.due_at)} and no worker takes it: workers {lately}"
    return "due", f"{reason}; see `mailwright doctor`.{ahead}", turn.due_at


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
