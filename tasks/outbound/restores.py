"""A restored database sends nothing until someone says so: what a backup calls queued may have gone since.

That a database is not the one it was is proven, at the start of every dispatch, by

    the cluster's system identifier    a dump loaded into another Postgres
    the database's OID                 ... into another database of the same Postgres
    the transaction that wrote a row   ... into the same database: loading writes the row anew
    the timeline of its WAL            recovery to a point in time; a standby that took over
    the position in its WAL            behind a mark in the home directory of a process: a copy of the files

The last one is only as good as the mark: a process whose home directory is gone with the machine has none. A
copy of the files that is newer than the mark (at most ten seconds old) is not recognised.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import Row, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from config.errors import Conflict
from config.settings import Settings
from schema.tables.access import Operation
from tasks import access
from tasks.access import Actor
from tasks.runtime import Runtime

MARK: Final = "sending.mark"
"""Name of the file in the home directory."""
CHECK_SECONDS: Final = 1.0
MARK_SECONDS: Final = 10.0
TELL_SECONDS: Final = 60.0

_NOW = """
    (SELECT system_identifier::text FROM pg_control_system()) AS cluster,
    left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline,
    (SELECT oid::text FROM pg_database WHERE datname = current_database()) AS database,
    pg_current_wal_flush_lsn() - '0/0' AS lsn
"""

LOOK = text(f"""
    SELECT a.uid, a.behind, a.cluster <> n.cluster AS other_cluster,
           a.timeline <> n.timeline AS other_timeline, a.database <> n.database AS other_database,
           a.xid <> a.xmin::text AS loaded, n.lsn
    FROM (SELECT {_NOW}) AS n LEFT JOIN mailwright.anchor AS a ON true
""")  # noqa: S608  the parts are ours

WEIGH = text("DELETE FROM mailwright.anchor")

# The row is never changed: its xmin is part of the proof.
DROP = text(f"""
    INSERT INTO mailwright.anchor (cluster, timeline, database, xid)
    SELECT n.cluster, n.timeline, n.database, cast(pg_current_xact_id() AS xid)::text
    FROM (SELECT {_NOW}) AS n ON CONFLICT DO NOTHING
""")  # noqa: S608

FALL_BEHIND = text("UPDATE mailwright.anchor SET behind = :why WHERE uid = :uid")

_log = structlog.get_logger()


def held(session: Session, settings: Settings) -> str | None:
    """Why nothing is sent, one sentence; None where the database is the one that it was."""
    row = session.execute(LOOK).one()
    return None if row.uid is None else _reason(row, settings.trust_failover)


def release(actor: Actor, session: Session, settings: Settings) -> None:
    """Let a restored database send. Raises `Conflict` where it does already."""
    access.require(session, actor, Operation.MANAGE_ADMINISTRATION, "let a restored database send")
    reason = held(session, settings)
    if reason is None:
        raise Conflict("sending is not held. To let one message go: mailwright outbox release ID")
    session.execute(WEIGH)
    session.execute(DROP)
    access.audit(session, actor, "sending.released", "outbox", None, "", {"held": (reason, None)})


class Guard:
    """One process's look at the database, at most once a second."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._file = runtime.settings.home / MARK
        self._checked = self._marked = self._told = -1e9
        self._found: str | None = None

    def held(self) -> str | None:
        """As `held`; drops the anchor at the first dispatch ever."""
        if time.monotonic() - self._checked > CHECK_SECONDS:
            self._found = self._look()
            self._checked = time.monotonic()
        if self._found is not None and time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            _log.warning("sending.held", reason=self._found)
        return self._found

    def close(self) -> None:
        """Nothing is held open."""

    def _look(self) -> str | None:
        mark = _marked(self._file)  # before the look: what others note meanwhile is further than it
        try:
            with self._runtime.db.begin() as session:
                row = session.execute(LOOK).one()
                if row.uid is None:
                    session.execute(DROP)
                    return None
        except DBAPIError as error:  # a managed Postgres that does not tell: nothing can be proven there
            if time.monotonic() - self._told > TELL_SECONDS:
                self._told = time.monotonic()
                _log.warning("sending.unguarded", error=type(error.orig).__name__)
            return None
        reason = _reason(row, self._runtime.settings.trust_failover)
        if reason is None and mark.get(str(row.uid), 0) > row.lsn:
            reason = "This database was put back to an earlier state."
            with self._runtime.db.begin() as session:
                session.execute(FALL_BEHIND, {"why": reason, "uid": row.uid})
        elif reason is None and time.monotonic() - self._marked > MARK_SECONDS:
            self._mark(row)
        return reason

    def _mark(self, row: Row[Any]) -> None:
        """Remember how far the WAL is on disk; several processes may share the file, the furthest counts."""
        self._marked = time.monotonic()
        if _marked(self._file).get(str(row.uid), 0) >= row.lsn:
            return
        new = self._file.with_name(f"{MARK}.{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps({"anchor": str(row.uid), "lsn": int(row.lsn)}), encoding="ascii")
            new.replace(self._file)
        except OSError as error:
            _log.warning("sending.unmarked", error=error.strerror, file=str(self._file))
            self._marked += 3600  # once an hour is enough


def _marked(file: Path) -> Mapping[str, int]:
    """The position noted, by its anchor; empty where there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # no mark, or half of one, proves nothing
        mark = json.loads(file.read_text(encoding="ascii"))
        return {str(mark["anchor"]): int(mark["lsn"])}
    return {}


def _reason(row: Row[Any], trust_failover: bool) -> str | None:
    if row.behind is not None:
        return str(row.behind)
    if row.other_cluster:
        return "This database was loaded into another Postgres."
    if row.other_database or row.loaded:
        return "This database was loaded from a dump."
    if row.other_timeline and not trust_failover:
        return "Its Postgres was recovered from a backup, or a standby took over."
    return None
