"""Why a mailbox is or is not being synced now, in one sentence, and when it will be.

    not ready ──> stopped         leased ──> syncing, or held by a worker that seems dead
    host left alone ──> unreachable        later ──> waiting, failing        now ──> due, and what for

What is amiss within a mailbox that goes on, folders and messages, is told behind it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from schema.tables.mailboxes import Mailbox
from schema.tables.providers import Provider
from tasks.access import Actor
from tasks.mailboxes import engine, tokens
from tasks.mailboxes.routing import require_ready
from tasks.mailboxes.values import NotReady, Protocol

LATE_SECONDS: Final = 10.0
"""A due mailbox that nobody took for so long has a reason."""
FOLDERS_NAMED: Final = 3

TURN = text("""
    -- A mailbox's turn, and what it shares its caps with; indexes: schedule_pkey, schedule_leased,
    -- breakers_pkey, folders_present_key, places_stubs.
    SELECT s.lane, s.enabled, s.next_poll_at, s.lease_owner, s.lease_until > now() AS leased, s.lease_until,
           extract(epoch FROM s.lease_until - now())::float8 AS lease_left, s.failures,
           s.crashes, s.last_error, s.last_started_at, s.last_synced_at, s.asked,
           extract(epoch FROM now() - s.next_poll_at)::float8 AS late, s.host,
           p.connections_per_host, p.connections_per_account,
           (SELECT count(*) FROM mailwright.schedule AS b
            WHERE b.host = s.host AND b.lease_until > now()) AS of_host,
           (SELECT count(*) FROM mailwright.schedule AS b
            WHERE b.account = s.account AND b.lease_until > now()) AS of_account,
           (SELECT max(b.last_started_at) FROM mailwright.schedule AS b) AS claimed_at,
           b.opened_at, b.retry_at AS probe_at, b.retry_at > now() AS resting, b.last_error AS host_error,
           CASE WHEN b.slow_until > now() THEN b.slow_until END AS slow_until,
           ARRAY(SELECT f.name FROM mailwright.folders AS f
                 WHERE f.mailbox_id = s.mailbox_id AND f.followed AND f.gone_at IS NULL AND f.retry_at > now()
                 ORDER BY f.name) AS left_out,
           (SELECT min(f.retry_at) FROM mailwright.folders AS f
            WHERE f.mailbox_id = s.mailbox_id AND f.followed AND f.gone_at IS NULL AND f.retry_at > now())
               AS folder_at,
           (SELECT count(*) FROM mailwright.places AS l
            WHERE l.mailbox_id = s.mailbox_id AND l.stub IS NOT NULL) AS stubs
    FROM mailwright.schedule AS s
    JOIN mailwright.providers AS p ON p.id = s.provider_id
    LEFT JOIN mailwright.breakers AS b ON b.protocol = 'imap' AND b.host = s.host
    WHERE s.mailbox_id = :mailbox_id
""")


@dataclass(frozen=True, slots=True)
class Why:
    """``state``: ``syncing``, ``waiting`` (for its time), ``due`` (for a worker), ``failing``,
    ``unreachable`` (its host) or ``stopped``; ``next_at``: when it is tried next, None where nobody knows."""

    address: str
    state: str
    reason: str
    next_at: datetime | None


def why(actor: Actor, session: Session, address: str, lease_seconds: float) -> Why:
    """Say why. ``lease_seconds`` is how long workers' leases are. To who manages mailboxes and to its owner;
    raises `NotFound`, `PermissionDenied`."""
    mailbox = engine.shown(actor, session, address).listed.mailbox
    provider = session.get_one(Provider, mailbox.provider_id)
    turn = session.execute(TURN, {"mailbox_id": mailbox.id}).one_or_none()
    try:
        now = _now(session)
        require_ready(mailbox, provider, Protocol.IMAP, now)
        _require_consent(session, mailbox, provider, now)
    except NotReady as error:
        return Why(mailbox.address, "stopped", str(error), error.until)
    if turn is None or not turn.enabled:
        reason = f"{mailbox.address} waits for its login: mailwright mailbox test {mailbox.address}"
        return Why(mailbox.address, "stopped", reason, None)
    return said(mailbox.address, turn, lease_seconds)


def not_ready(session: Session, mailbox_id: int, protocol: Protocol) -> NotReady | None:
    """What keeps a mailbox from being used by ``protocol`` now, None where nothing does."""
    mailbox = session.get_one(Mailbox, mailbox_id)
    try:
        require_ready(mailbox, session.get_one(Provider, mailbox.provider_id), protocol, _now(session))
    except NotReady as error:
        return error
    return None


def _require_consent(session: Session, mailbox: Mailbox, provider: Provider, now: datetime) -> None:
    """Raises `NotReady` where OAuth 2.0 gives no access token now."""
    if not tokens.by_oauth(provider, Protocol.IMAP):
        return
    row = tokens.row_of(session, mailbox.id)
    if row is None or row.issuer != tokens.issuer_of(provider):
        raise tokens.unauthorized(mailbox)
    if row.expires_at <= now and row.retry_at is not None and row.retry_at > now:
        raise tokens.resting(mailbox, row.last_error, row.retry_at)


def said(address: str, turn: Any, lease_seconds: float) -> Why:
    """The sentence about a mailbox that is followed; ``turn`` is a row of `TURN`."""
    rest = _history(turn) + _left_out(turn)
    if turn.leased:
        return Why(address, "syncing", f"{address} {_holder(turn, lease_seconds)}.{rest}", None)
    if turn.opened_at is not None:
        return Why(address, "unreachable", f"{address} {_unreachable(turn, address)}{rest}", turn.probe_at)
    failed = ""
    if turn.failures:
        failed = f" The last {_times(turn.failures)} failed: {(turn.last_error or 'unknown').rstrip('.')}."
    if turn.late < 0:
        state = "failing" if turn.failures else "waiting"
        last = "never yet" if turn.last_synced_at is None else f"at {_clock(turn.last_synced_at)}"
        reason = (
            f"{address} was synced {last}; the next time is at {_clock(turn.next_poll_at)}.{failed}{rest}"
        )
        return Why(address, state, reason, turn.next_poll_at)
    return Why(address, "due", f"{address} is due {_cause(turn)}.{failed}{rest}", turn.next_poll_at)


def _holder(turn: Any, lease_seconds: float) -> str:
    """Leases are renewed three times in their life: one of which less than half is left was not."""
    held = f"is being synced by {turn.lease_owner} since {_clock(turn.last_started_at)}"
    if turn.lease_left >= lease_seconds / 2:
        return held
    return (
        f"{held}, which has not renewed its lease and may be dead; "
        f"another worker takes it after {_clock(turn.lease_until)}"
    )


def _unreachable(turn: Any, address: str) -> str:
    probe = (
        f"is tried again at {_clock(turn.probe_at)}, or at once: mailwright sync {address}"
        if turn.resting
        else "is being tried again by one of its mailboxes"
    )
    error = (turn.host_error or "unknown").rstrip(".")
    return (
        f"waits for {turn.host}, which failed for everyone and is left alone since "
        f"{_clock(turn.opened_at)} ({error}); it {probe}."
    )


def _cause(turn: Any) -> str:
    if turn.of_account >= turn.connections_per_account:
        return f"and waits for one of the {turn.connections_per_account} connections of its account"
    if turn.of_host >= turn.connections_per_host:
        return f"and waits for one of the {turn.connections_per_host} connections to {turn.host}"
    if turn.slow_until is not None:
        return (
            f"and waits in the slow lane: {turn.host} made us wait for answers, so until "
            f"{_clock(turn.slow_until)} it gets at most a quarter of a worker's slots"
        )
    if turn.lease_owner is not None:
        return (
            f"since {_clock(turn.lease_until)}, when {turn.lease_owner}, which died or hung at it, lost its "
            "lease; a worker takes it within a tick"
        )
    if turn.late < LATE_SECONDS:
        return "now; a worker takes it within a tick"
    lately = (
        "never took any mailbox" if turn.claimed_at is None else f"took one last at {_clock(turn.claimed_at)}"
    )
    return (
        f"since {_clock(turn.next_poll_at)} and no worker takes it: workers {lately}; see `mailwright doctor`"
    )


def _history(turn: Any) -> str:
    return " It still fetches its history." if turn.lane == "history" else ""


def _left_out(turn: Any) -> str:
    """Folders that rest after a failure, and messages that cannot be had."""
    told = ""
    if turn.left_out:
        names = ", ".join(turn.left_out[:FOLDERS_NAMED])
        more = len(turn.left_out) - FOLDERS_NAMED
        others = f" and {more} more" if more > 0 else ""
        told += f" Without {names}{others}, which failed, until {_clock(turn.folder_at)}."
    if turn.stubs:
        told += f" {turn.stubs} of its messages cannot be had; message.unreadable events name them."
    return told


def _times(count: int) -> str:
    return "try" if count == 1 else f"{count} tries"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _now(session: Session) -> datetime:
    now: datetime = session.execute(text("SELECT now()")).scalar_one()
    return now
