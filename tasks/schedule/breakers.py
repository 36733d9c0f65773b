"""The breakers in Postgres: faults and answers counted, events told, those that waited let back in turns."""

import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Row
from sqlalchemy.orm import Session

from schema.database import Database
from tasks.events import NewEvent, record
from tasks.schedule import queries
from tasks.schedule.breaker import Breaker, after_fault, return_seconds

BATCH = 1000
"""Rows that one transaction spreads."""

_log = structlog.get_logger()


def fault(session: Session, protocol: str, host: str, error: str, *, probe: bool = False) -> datetime | None:
    """Count a fault against a host (``protocol``: ``imap`` or ``smtp``). Returns until when it is left alone,
    and then what failed there is no failure of the mailbox; None where it is not."""
    place = {"protocol": protocol, "host": host}
    session.execute(queries.KNOW_HOST, place)
    row = session.execute(queries.BREAKER, place).one()
    before = _breaker(row)
    after = after_fault(before, row.now, probe=probe, draw=random.random())
    if after != before:
        changed = {"faults": after.faults, "trips": after.trips, "error": error[:500]}
        opened = {"opened_at": after.opened_at, "retry_at": after.retry_at}
        session.execute(queries.SET_BREAKER, {**place, **changed, **opened})
    if after.is_open and not before.is_open:
        assert after.retry_at is not None
        _log.warning("host.unreachable", **place, error=error)
        facts = {"reason": error[:500], "next_try_at": after.retry_at.isoformat()}
        _tell(session, "provider.unreachable", protocol, host, facts)
    return after.retry_at


def answered(db: Database, protocol: str, host: str) -> None:
    """The host did what was asked of it. Where it had been left alone, whoever waited comes back by turns.
    For use outside any transaction, where there was a fault lately; harmless to repeat."""
    place = {"protocol": protocol, "host": host}
    with db.begin() as session:
        row = session.execute(queries.BREAKER, place).one_or_none()
        if row is None or row.faults == 0:
            return
        if row.opened_at is None:
            session.execute(queries.CLOSE_BREAKER, place)
            return
    _spread(db, protocol, host)
    with db.begin() as session:
        row = session.execute(queries.BREAKER, place).one_or_none()
        if row is None or row.opened_at is None:
            return  # another told it meanwhile
        session.execute(queries.CLOSE_BREAKER, place)
        _log.info("host.recovered", **place, away_since=row.opened_at.isoformat())
        facts = {"since": row.opened_at.isoformat()}
        _tell(session, "provider.recovered", protocol, host, facts)


def untried(session: Session, protocol: str, host: str) -> None:
    """The probe was not made after all; another may be."""
    session.execute(queries.END_PROBE, {"protocol": protocol, "host": host})


def try_now(session: Session, mailboxes: Sequence[int]) -> None:
    """Somebody asks: let the IMAP hosts of these mailboxes be probed at once."""
    session.execute(queries.PROBE_NOW, {"mailboxes": list(mailboxes)})


def forget(session: Session, hosts: Sequence[str | None]) -> None:
    """Start afresh with hosts, because what is known of how to reach them was changed."""
    session.execute(queries.FORGET_HOSTS, {"hosts": [host.lower() for host in hosts if host]})


def slow(session: Session, protocol: str, host: str, seconds: float) -> None:
    """Note for people that a host made us wait, and is in the slow lane for ``seconds``."""
    place = {"protocol": protocol, "host": host}
    session.execute(queries.KNOW_HOST, place)
    session.execute(queries.NOTE_SLOW, {**place, "seconds": seconds})


def _spread(db: Database, protocol: str, host: str) -> None:
    """Spread what is overdue at a host that nobody claims from yet, in batches."""
    with db.begin() as session:
        found = session.execute(queries.OVERDUE[protocol], {"host": host}).one()
    window = return_seconds(found.waiting)
    while True:
        given = {"host": host, "before": found.now, "window": window, "batch": BATCH}
        with db.begin() as session:
            if not session.execute(queries.SPREAD[protocol], given).all():
                return


def _breaker(row: Row[Any]) -> Breaker:
    return Breaker(row.faults, row.trips, row.opened_at, row.retry_at)


def _tell(session: Session, kind: str, protocol: str, host: str, facts: dict[str, str]) -> None:
    """One event for each provider that stands on the host."""
    told = session.execute(queries.PROVIDERS_OF[protocol], {"host": host}).all()
    about = {"protocol": protocol, "host": host} | facts
    record(session, [NewEvent(kind, None, str(row.uid), {"name": row.name} | about) for row in told])
