"""Why a mailbox is or is not being synced now, in one sentence, and when it will be."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from schema.tables.providers import Provider
from tasks.access import Actor
from tasks.mailboxes import engine
from tasks.mailboxes.routing import require_ready
from tasks.mailboxes.values import NotReady, Protocol

LATE_SECONDS: Final = 10.0
"""A due mailbox that nobody took for so long has a reason."""

TURN = text("""
    -- A mailbox's turn, and what it shares its caps with; indexes: schedule_pkey, schedule_leased.
    SELECT s.lane, s.enabled, s.next_poll_at, s.lease_owner, s.lease_until > now() AS leased, s.failures,
           s.crashes, s.last_error, s.last_started_at, s.last_synced_at, s.asked,
           extract(epoch FROM now() - s.next_poll_at)::float8 AS late, s.host,
           p.connections_per_host, p.connections_per_account,
           (SELECT count(*) FROM mailwright.schedule AS b
            WHERE b.host = s.host AND b.lease_until > now()) AS of_host,
           (SELECT count(*) FROM mailwright.schedule AS b
            WHERE b.account = s.account AND b.lease_until > now()) AS of_account,
           (SELECT max(b.last_started_at) FROM mailwright.schedule AS b) AS claimed_at
    FROM mailwright.schedule AS s JOIN mailwright.providers AS p ON p.id = s.provider_id
    WHERE s.mailbox_id = :mailbox_id
""")


@dataclass(frozen=True, slots=True)
class Why:
    """``state``: ``syncing``, ``waiting`` (for its time), ``due`` (for a worker), ``failing`` or ``stopped``;
    ``next_at``: when it is tried next, None where nobody knows."""

    address: str
    state: str
    reason: str
    next_at: datetime | None


def why(actor: Actor, session: Session, address: str) -> Why:
    """Say why. To who manages mailboxes and to its owner; raises `NotFound`, `PermissionDenied`."""
    mailbox = engine.shown(actor, session, address).listed.mailbox
    provider = session.get_one(Provider, mailbox.provider_id)
    turn = session.execute(TURN, {"mailbox_id": mailbox.id}).one_or_none()
    try:
        require_ready(mailbox, provider, Protocol.IMAP, _now(session))
    except NotReady as error:
        return Why(mailbox.address, "stopped", str(error), error.until)
    if turn is None or not turn.enabled:
        reason = f"{mailbox.address} waits for its login: mailwright mailbox test {mailbox.address}"
        return Why(mailbox.address, "stopped", reason, None)
    return said(mailbox.address, turn)


def said(address: str, turn: Any) -> Why:
    """The sentence about a mailbox that is followed; ``turn`` is a row of `TURN`."""
    history = " It still fetches its history." if turn.lane == "history" else ""
    if turn.leased:
        reason = (
            f"{address} is being synced by {turn.lease_owner} since {_clock(turn.last_started_at)}.{history}"
        )
        return Why(address, "syncing", reason, None)
    failed = ""
    if turn.failures:
        failed = f" The last {_times(turn.failures)} failed: {(turn.last_error or 'unknown').rstrip('.')}."
    if turn.late < 0:
        state = "failing" if turn.failures else "waiting"
        last = "never yet" if turn.last_synced_at is None else f"at {_clock(turn.last_synced_at)}"
        reason = (
            f"{address} was synced {last}; the next time is at {_clock(turn.next_poll_at)}.{failed}{history}"
        )
        return Why(address, state, reason, turn.next_poll_at)
    return Why(address, "due", f"{address} is due {_cause(turn)}.{failed}{history}", turn.next_poll_at)


def _cause(turn: Any) -> str:
    if turn.of_account >= turn.connections_per_account:
        return f"and waits for one of the {turn.connections_per_account} connections of its account"
    if turn.of_host >= turn.connections_per_host:
        return f"and waits for one of the {turn.connections_per_host} connections to {turn.host}"
    if turn.late < LATE_SECONDS:
        return "now; a worker takes it within a tick"
    lately = (
        "never took any mailbox" if turn.claimed_at is None else f"took one last at {_clock(turn.claimed_at)}"
    )
    return (
        f"since {_clock(turn.next_poll_at)} and no worker takes it: workers {lately}; see `mailwright doctor`"
    )


def _times(count: int) -> str:
    return "try" if count == 1 else f"{count} tries"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _now(session: Session) -> datetime:
    now: datetime = session.execute(text("SELECT now()")).scalar_one()
    return now
