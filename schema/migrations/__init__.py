"""Bringing a database to the present schema, and telling whether it is there.

Alembic is loaded only by what changes a database: every process asks whether it is up to date, and would
carry 8 MB of it from then on.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, text

from schema.database import translated

if TYPE_CHECKING:
    from alembic.config import Config

_HERE = Path(__file__).parent


def head() -> str:
    """The newest revision that this code knows: revisions are numbered, and their files named by them."""
    return max(path.name.partition("_")[0] for path in (_HERE / "versions").glob("[0-9]*.py"))


def current(engine: Engine) -> str | None:
    """The revision the database is at; None before the first migration."""
    with translated(), engine.connect() as connection:
        if connection.execute(text("SELECT to_regclass('mailwright.alembic_version')")).scalar() is None:
            return None
        revision = connection.execute(text("SELECT version_num FROM mailwright.alembic_version")).scalar()
        return None if revision is None else str(revision)


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Apply what is missing, one process at a time."""
    from alembic import command

    config = _config()
    with translated(), engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('mailwright.migrations'))"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Take migrations back down to ``revision`` (``base`` for none)."""
    from alembic import command

    config = _config()
    with translated(), engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def check(engine: Engine) -> None:
    """Raise where the tables of the database differ from ``schema.tables`` (Alembic's own check)."""
    from alembic import command

    config = _config()
    with translated(), engine.begin() as connection:
        config.attributes["connection"] = connection
        command.check(config)


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_HERE))
    return config
