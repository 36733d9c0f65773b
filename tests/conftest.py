"""Real servers for tests: one Postgres and one Valkey a test process, a fresh database a test."""

import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from sqlalchemy import create_engine, text

from config.settings import Settings
from schema import migrations
from schema.database import Database
from tasks.runtime import Runtime
from tasks.secrets import new_key_line
from worker.stack import Postgres, Valkey

TEMPLATE = "mailwright_template"


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """A command that is run within a test configures logging for its process; that ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """The embedded Postgres, with a migrated template database."""
    server = Postgres(tmp_path_factory.mktemp("postgres"), durable=False)
    server.start()
    try:
        server.ensure_database(TEMPLATE)
        engine = create_engine(server.url(TEMPLATE))
        migrations.upgrade(engine)
        engine.dispose()
        yield server
    finally:
        server.stop()
        server.discard()


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = f"test_{secrets.token_hex(6)}"
    admin = create_engine(postgres.url("postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
    yield postgres.url(name)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """Access to the test's database."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey, as Celery addresses it."""
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
        server.discard()


@pytest.fixture
def settings(database_url: str, valkey_url: str, tmp_path: Path) -> Settings:
    """Settings over the test's servers, a fresh key ring, leases of two seconds."""
    return Settings.model_validate(
        {
            "home": tmp_path,
            "database_url": database_url,
            "broker_url": valkey_url,
            "key_ring": new_key_line(),
            "lease_seconds": 2,
            "poll_min_seconds": 0.2,
            "imap_timeout_seconds": 10,
        }
    )


@pytest.fixture
def runtime(settings: Settings) -> Iterator[Runtime]:
    """A runtime as a worker has it."""
    opened = Runtime.open(settings)
    yield opened
    opened.close()
