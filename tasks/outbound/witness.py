"""Noting that a DATA begins, so that after a worker's death only such messages are in doubt; and with
the same commit how the one before it ended, so that of each connection only the last is.

One row a message in an UNLOGGED table, each its own commit over a connection kept for it: such a
commit waits for no disk. The nil UUID's row names this life of the table (see `DataStarted`).
"""

import threading
from typing import Any
from uuid import UUID

import psycopg

from schema.database import Database, translated
from tasks.outbound import queries


class Witness:
    """One connection a process, outside the pool; safe from several threads."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None

    def note(self, attempt: UUID, last: tuple[UUID, str] | None = None) -> None:
        """Commit that ``attempt`` begins its DATA, and the outcome (JSON) of the ``last`` one before it.
        Raises `DatabaseDown`."""
        over = (last[0].hex.encode(), last[1].encode()) if last else (None, None)
        with self._lock, translated():
            if self._connection is None:
                self._connection = self._connect()
            # libpq's own call: the driver's cursor takes longer than the statement.
            result = self._connection.pgconn.exec_prepared(b"started", [attempt.hex.encode(), *over])
            if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
                self._drop()
                raise psycopg.OperationalError(f"DATA was not noted: {result.error_message[:200]!r}")

    def close(self) -> None:
        """Close the connection; `note` opens another."""
        with self._lock:
            self._drop()

    def _connect(self) -> psycopg.Connection[Any]:
        pooled = self._db.engine.raw_connection()
        connection = pooled.driver_connection
        pooled.detach()
        assert isinstance(connection, psycopg.Connection)
        connection.rollback()
        connection.autocommit = True
        connection.execute("SET enable_seqscan = off")  # the plan is made once, while the table may be empty
        connection.pgconn.prepare(b"started", queries.STARTED)
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
