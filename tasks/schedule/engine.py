"""Claiming mailboxes whose turn has come, and giving them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from config.errors import LeaseLost
from config.queues import Lane
from schema.database import run
from tasks.schedule import queries
from tasks.schedule.values import Claim, Held, Rest, jittered, retry_delay

if TYPE_CHECKING:
    from tasks.runtime import Runtime


HEAD_START = 2.0
"""Seconds for which a due mailbox is left to the process that had it last."""


def claim(
    runtime: Runtime,
    lane: Lane,
    limit: int = 1,
    *,
    held: Sequence[int] = (),
    resting: bool = False,
    full: Sequence[str] = (),
) -> list[Claim]:
    """Take up to ``limit`` due mailboxes of a lane, each under a lease; within the caps of host and
    account, one provider after the other. Claim and lease are one UPDATE.

    ``held`` are those whose sessions rest in this process: only they are taken where ``resting``, and
    only others where not. From hosts that are ``full`` nothing is taken.
    """
    with runtime.db.begin() as session:
        run(session, queries.CLAIM_LOCK, {})
        rows = run(
            session,
            queries.CLAIM_RESTING if resting else queries.CLAIM_OTHERS,
            {
                "lane": lane.value,
                "limit": limit,
                "owner": runtime.owner,
                "lease": runtime.settings.lease_seconds,
                "held": list(held),
                "head_start": HEAD_START,
                "full": list(full),
            },
        )
    return [
        Claim(
            lease=Held("schedule", row.mailbox_id, row.lease_token),
            lane=Lane(row.lane),
            interval=row.interval_seconds,
            failures=row.failures,
            crashes=row.crashes,
            asked=row.asked,
            claimed_at=row.last_started_at,
            host=row.host,
            doubted=row.doubted,
            probe=row.probe,
        )
        for row in rows
    ]


def fence(session: Session, lease: Held, seconds: float) -> None:
    """Lock the lease's row and renew it for ``seconds``; first in every transaction of its holder.

    Raises `LeaseLost` where another holds it by now.
    """
    asked = {"mailbox_id": lease.mailbox_id, "token": lease.token, "lease": seconds}
    if not run(session, queries.FENCE[lease.table], asked):
        raise LeaseLost(f"the lease on mailbox {lease.mailbox_id} was lost to another process.")


def finish(session: Session, claim: Claim, *, lane: Lane, rest: Rest) -> None:
    """Give a mailbox back after success, due again after its rest (a tenth more or less)."""
    run(
        session,
        queries.FINISH,
        {
            "mailbox_id": claim.mailbox_id,
            "token": claim.lease.token,
            "lane": lane.value,
            "interval": rest.interval,
            "pause": jittered(rest.pause),
            "watched": jittered(rest.watched),
        },
    )


def finish_unchanged(session: Session, rests: Mapping[Claim, Rest]) -> set[int]:
    """Give back many mailboxes in which nothing changed, each due again after its rest (a tenth more or
    less). Returns those whose leases were still ours."""
    rows = session.execute(
        queries.FINISH_MANY,
        {
            "mailboxes": [claim.mailbox_id for claim in rests],
            "tokens": [claim.lease.token for claim in rests],
            "intervals": [rest.interval for rest in rests.values()],
            "pauses": [jittered(rest.pause) for rest in rests.values()],
            "watched": [jittered(rest.watched) for rest in rests.values()],
        },
    )
    return set(rows.scalars())


def fail(session: Session, claim: Claim, error: str) -> None:
    """Give a mailbox back after failure; each failure in a row doubles its pause, at most an hour."""
    session.execute(
        queries.FAIL,
        {
            "mailbox_id": claim.mailbox_id,
            "token": claim.lease.token,
            "error": error[:500],
            "pause": retry_delay(claim.failures + 1),
        },
    )


def postpone(session: Session, claim: Claim, reason: str, until: datetime | None) -> None:
    """Give back a mailbox that may not be talked to now, due again at ``until``, or in an hour where
    nobody knows; no failure is counted."""
    session.execute(
        queries.POSTPONE,
        {
            "mailbox_id": claim.mailbox_id,
            "token": claim.lease.token,
            "reason": reason[:500],
            "until": until,
        },
    )


def release(session: Session, claim: Claim, lane: Lane) -> None:
    """Give a mailbox back with work left, due at once."""
    session.execute(
        queries.RELEASE,
        {
            "mailbox_id": claim.mailbox_id,
            "token": claim.lease.token,
            "lane": lane.value,
            "asked": claim.asked,
        },
    )


def ask(session: Session, mailboxes: Sequence[int]) -> tuple[datetime, list[int]]:
    """Make mailboxes due now. Returns the database's time and those that are enabled for it."""
    since = session.execute(select(func.clock_timestamp())).scalar_one()
    rows = session.execute(queries.ASK, {"mailboxes": list(mailboxes), "lane": Lane.SYNC.value})
    return since, [row.mailbox_id for row in rows]


def settled(session: Session, mailboxes: Sequence[int], since: datetime) -> dict[int, str | None]:
    """Which of ``mailboxes`` were synced (None) or failed (the reason) since a time; others are absent."""
    rows = session.execute(queries.SETTLED, {"mailboxes": list(mailboxes), "since": since})
    return {
        row.mailbox_id: None if row.synced else (row.last_error or "failed")
        for row in rows
        if (row.synced and row.lane == Lane.SYNC) or row.failed
    }


def followed(session: Session, mailboxes: Sequence[int]) -> set[int]:
    """Those of ``mailboxes`` that are to be synced at all."""
    return set(session.execute(queries.FOLLOWED, {"mailboxes": list(mailboxes)}).scalars())


def hasten(session: Session, mailbox_id: int, seconds: float) -> None:
    """Let a mailbox be synced within ``seconds``, because something waits to be written back to it."""
    session.execute(queries.HASTEN, {"mailbox_id": mailbox_id, "seconds": seconds})


def unwatched(session: Session, mailboxes: Sequence[int]) -> None:
    """No watcher hears of these mailboxes any more: they are polled as often as others."""
    session.execute(queries.UNWATCHED, {"mailboxes": list(mailboxes)})
