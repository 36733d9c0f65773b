"""Bringing a database to the present schema, and telling whether it is there."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from schema.database import translated
from schema.tables.base import SCHEMA

_HERE = Path(__file__).parent


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_HERE))
    return config


def head() -> str:
    """The newest revision that this code knows."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def current(engine: Engine) -> str | None:
    """The revision the database is at; None before the first migration."""
    with translated(), engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
        return context.get_current_revision()


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Apply what is missing, one process at a time."""
    config = _config()
    with translated(), engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('mailwright.migrations'))"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Take migrations back down to ``revision`` (``base`` for none)."""
    config = _config()
    with translated(), engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def check(engine: Engine) -> None:
    """Raise where the tables of the database differ from ``schema.tables`` (Alembic's own check)."""
    config = _config()
    with translated(), engine.begin() as connection:
        config.attributes["connection"] = connection
        command.check(config)
