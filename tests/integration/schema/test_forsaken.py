"""A process that stands still in a transaction gives its locks up, in the middle of a pipeline's end too."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import text

from schema.database import TRANSACTION_LEASES, Database, DatabaseDown, translated

FORSAKEN_SECONDS = 0.2


@contextmanager
def locking(db: Database) -> Iterator[psycopg.Connection[tuple[int]]]:
    """A connection of a database with little patience, and a lock of its that others wait for."""
    hasty = Database(db.engine.url.render_as_string(hide_password=False), forsaken_seconds=FORSAKEN_SECONDS)
    pooled = hasty.engine.raw_connection()
    connection = pooled.driver_connection
    assert isinstance(connection, psycopg.Connection)
    pooled.detach()
    try:
        yield connection
    finally:
        connection.close()
        hasty.close()


def lock_is_given_up(db: Database) -> bool:
    """Whether another gets it, in a second more than any transaction may take."""
    patience = round(1000 * (1 + TRANSACTION_LEASES * FORSAKEN_SECONDS))
    with db.begin() as session:
        session.execute(text(f"SET LOCAL lock_timeout = {patience}"))
        session.execute(text("SELECT pg_advisory_xact_lock(77)"))
    return True


def test_a_process_that_stands_still_in_a_transaction(db: Database) -> None:
    with locking(db) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(77)")

        assert lock_is_given_up(db)
        assert_told(connection)


def test_a_process_that_stands_still_where_a_pipeline_ended(db: Database) -> None:
    with locking(db) as connection:
        if connection.info.server_version < 170000:
            pytest.skip("Postgres before 17 has no limit for a whole transaction")
        with connection.pipeline():
            connection.execute("SELECT pg_advisory_xact_lock(77)")
        connection.pgconn.send_flush_request()  # as an end of a pipeline does whose answers are under way
        connection.pgconn.flush()

        assert lock_is_given_up(db)
        assert_told(connection)


def assert_told(connection: psycopg.Connection[tuple[int]]) -> None:
    """It may try again: what it did was undone."""
    with pytest.raises(DatabaseDown, match="stood still in a transaction"), translated():
        connection.execute("SELECT 1")
