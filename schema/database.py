"""Connections to Postgres: one engine a process, short transactions, errors in our own words."""

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import Engine, TextClause, create_engine, event
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InvalidatePoolError,
    OperationalError,
    TimeoutError,
)
from sqlalchemy.orm import Session

from config.errors import TransientError, UserError
from config.sockets import readable

_BUSY = ("40", "53", "55")
"""Classes of SQLSTATE: rolled back because of others, out of resources (a full disk), locked by others."""

_FORSAKEN = (psycopg.errors.IdleInTransactionSessionTimeout, psycopg.errors.TransactionTimeout)
"""What a process that stood still for too long is told when it goes on: its connection is gone."""

_OPTIONS = {
    # A vanished worker frees its rows; a vanished server is noticed.
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "mailwright",
    "prepare_threshold": sys.maxsize,  # only what asks for it: ``execute(…, prepare=True)``
}

PREPARED_MAX = 300
"""Statements that a connection keeps prepared: each once for the types of its numbers."""
Question = tuple[TextClause, Mapping[str, object]]
Row = tuple[object, ...]
FEW = 4
"""So many rows are sooner inserted than copied."""
FRESH_SECONDS = 1.0
"""A connection that answered within these, and has said nothing since, is not asked whether it lives."""


class DatabaseDown(TransientError):
    """Postgres cannot be reached or went away; nothing was half-done."""

    code = "database_down"


class SchemaMissing(UserError):
    """The database has no tables of ours, or older ones."""

    code = "schema_missing"


FORSAKEN_SECONDS = 60.0
"""How long an open transaction may wait for its process before Postgres ends it, unless told otherwise."""

TRANSACTION_LEASES = 10
"""So many times as long a whole transaction may take: psycopg ends a pipeline with a Flush, and a Flush ends
Postgres' count of idleness without beginning another, so that a process that stands still just then would
keep its locks for ever. Before Postgres 17 there is no such limit."""


class Database:
    """All access to Postgres of one process. Hides statement parameters from every message."""

    def __init__(self, url: str, pool: int = 10, forsaken_seconds: float = FORSAKEN_SECONDS) -> None:
        """``pool`` is the most connections held at once; the locks of a process that stands still go to
        others after ``forsaken_seconds``. Raises `UserError` for what is no database URL."""
        self._forsaken_ms = round(forsaken_seconds * 1000)
        try:
            self.engine: Engine = create_engine(
                url,
                pool_size=pool,
                max_overflow=0,
                pool_timeout=30,
                hide_parameters=True,
                connect_args=_OPTIONS,
            )
        except (ArgumentError, ValueError):
            raise _bad_url() from None
        event.listen(self.engine, "connect", self._prepare)
        event.listen(self.engine, "checkout", _ping)
        event.listen(self.engine, "checkin", _answered)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back by any exception.

        Raises `DatabaseDown` where Postgres is out of reach and `SchemaMissing` where a migration
        was not applied.
        """
        with translated(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def direct(self) -> Iterator[psycopg.Connection[Any]]:
        """The same on the driver's own connection, for what runs for every few messages: a session's
        bookkeeping takes longer than the statements. The caller calls ``commit()``, which may end a pipeline;
        what is not committed is rolled back. Errors as `begin`."""
        with translated():
            pooled = self.engine.raw_connection()
            try:
                connection = pooled.driver_connection
                assert isinstance(connection, psycopg.Connection)
                yield connection
            finally:
                pooled.close()  # which rolls back

    def ask(self, statement: TextClause, given: Mapping[str, object]) -> list[Any]:
        """The rows of one prepared statement, alone in its transaction: one round trip. Errors as `begin`."""
        with self.direct() as connection:
            connection.autocommit = True
            try:
                return _run(connection, statement, given)
            finally:
                if not connection.closed:
                    connection.autocommit = False

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()

    def _prepare(self, connection: psycopg.Connection[Any], _record: object) -> None:
        connection.prepared_max = PREPARED_MAX
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = {self._forsaken_ms}".encode())
            if connection.info.server_version >= 170000:
                cursor.execute(f"SET transaction_timeout = {TRANSACTION_LEASES * self._forsaken_ms}".encode())
            cursor.execute("SET TIME ZONE 'UTC'")
        connection.commit()


def raw(session: Session) -> psycopg.Connection[Any]:
    """The psycopg connection under a session, for COPY; in the session's own transaction."""
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    return connection


def run(session: Session, statement: TextClause, given: Mapping[str, object]) -> list[Any]:
    """The rows of a statement that runs for every mailbox or message, in the session's transaction: prepared,
    and straight to the driver, as a session's own bookkeeping takes longer than many a statement."""
    return _run(raw(session), statement, given)


def run_all(session: Session, questions: Sequence[Question]) -> list[list[Any]]:
    """The rows of each of several statements, all sent at once: one round trip."""
    connection = raw(session)
    with connection.pipeline(), ExitStack() as opened:
        cursors = [opened.enter_context(connection.cursor(row_factory=namedtuple_row)) for _ in questions]
        for cursor, (statement, given) in zip(cursors, questions, strict=True):
            cursor.execute(_driver_sql(statement), given, prepare=True)
        return [cursor.fetchall() for cursor in cursors]


@contextmanager
def together(session: Session) -> Iterator[None]:
    """What is `tell`ed and `put` in the block is sent at once, one round trip; its faults are raised at the
    end at the latest. Nothing in the block may ask for rows."""
    with raw(session).pipeline():
        yield


def tell(session: Session, statement: TextClause, given: Mapping[str, object]) -> None:
    """As `run`, of a statement that gives no rows."""
    raw(session).execute(_driver_sql(statement), given, prepare=True)


def put(session: Session, table: str, columns: Mapping[str, str], rows: Sequence[Row]) -> None:
    """Add rows to a table of ours; ``columns`` in their order, with their types. Many go by binary COPY,
    which converts nothing."""
    if not rows:
        return
    connection, names = raw(session), ", ".join(columns)
    if len(rows) <= FEW or connection.pgconn.pipeline_status != psycopg.pq.PipelineStatus.OFF:
        values = ", ".join(["%s"] * len(columns))
        insert = f"INSERT INTO mailwright.{table} ({names}) VALUES ({values})".encode()  # noqa: S608  ours
        for row in rows:
            connection.execute(insert, row, prepare=True)
        return
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY mailwright.{table} ({names}) FROM STDIN (FORMAT BINARY)".encode()) as copy,
    ):
        copy.set_types(list(columns.values()))
        for row in rows:
            copy.write_row(row)


def _run(
    connection: psycopg.Connection[Any], statement: TextClause, given: Mapping[str, object]
) -> list[Any]:
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        cursor.execute(_driver_sql(statement), given, prepare=True)
        return cursor.fetchall() if cursor.description else []


@cache
def _driver_sql(statement: TextClause) -> bytes:
    """``:name`` as the driver writes it."""
    return re.sub(r"(?<![:\w]):(\w+)", r"%(\1)s", statement.text.replace("%", "%%")).encode()


def _answered(_connection: object, record: Any) -> None:
    record.info["answered_at"] = time.monotonic()


def _ping(connection: psycopg.Connection[Any], record: Any, _proxy: object) -> None:
    """Ask a pooled connection whether it lives, by libpq's own call (SQLAlchemy's takes longer than many a
    statement); unless it answered a moment ago and has nothing more to say, such as a farewell."""
    fresh = time.monotonic() - record.info.get("answered_at", -FRESH_SECONDS) < FRESH_SECONDS
    if fresh and not readable(connection.fileno()):
        return
    if connection.pgconn.exec_(b"").status != psycopg.pq.ExecStatus.EMPTY_QUERY:
        raise InvalidatePoolError


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's exceptions that a person may meet into ours; others pass."""
    try:
        yield
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.InvalidSchemaName,
        psycopg.errors.UndefinedFunction,
    ) as error:
        raise _schema_missing() from error
    except (psycopg.OperationalError, *_FORSAKEN) as error:
        raise _down(error) from error
    except TimeoutError as error:
        raise DatabaseDown(
            "every connection to the database is taken; raise MAILWRIGHT_DATABASE_POOL."
        ) from error
    except DBAPIError as error:
        if isinstance(
            error.orig,
            psycopg.errors.UndefinedTable
            | psycopg.errors.InvalidSchemaName
            | psycopg.errors.UndefinedFunction
            | psycopg.errors.UndefinedColumn,
        ):
            raise _schema_missing() from error
        down = isinstance(error, OperationalError) or isinstance(error.orig, _FORSAKEN)
        if down or error.connection_invalidated:
            raise _down(error.orig) from error
        if error.statement is None and isinstance(error.orig, psycopg.ProgrammingError):
            raise _bad_url() from None  # libpq refused it before it asked a server
        raise


def _schema_missing() -> SchemaMissing:
    return SchemaMissing("the database lacks our tables, or has older ones. Run `mailwright db upgrade`.")


def _bad_url() -> UserError:
    return UserError(
        "MAILWRIGHT_DATABASE_URL is no address of a database. "
        "Write postgresql://user:password@host:port/database, with %40 for an @ in the password."
    )


def _down(error: BaseException | None) -> DatabaseDown:
    if isinstance(error, _FORSAKEN):
        return DatabaseDown(
            "this process stood still in a transaction, and the database ended it. Try again."
        )
    if isinstance(error, psycopg.errors.DiskFull):
        return DatabaseDown(
            "the disk of Postgres is full; nothing was changed. Make room there and try again."
        )
    state = getattr(error, "sqlstate", None)
    if state is not None and state[:2] in _BUSY:
        name = type(error).__name__
        return DatabaseDown(f"the database could not do this now ({name}, {state}). Try again.")
    return DatabaseDown(
        "the database cannot be reached. Start it (`mailwright up` for the embedded one) "
        "or check MAILWRIGHT_DATABASE_URL."
    )
