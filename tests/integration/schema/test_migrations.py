"""Migrations: the database they make is the one the tables describe, and they go back down."""

from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from schema import migrations
from schema.database import Database
from worker.stack import Postgres


def test_the_migrated_database_is_what_the_tables_say(db: Database) -> None:
    migrations.check(db.engine)
    assert migrations.current(db.engine) == migrations.head()


def test_head_and_current_are_what_alembic_takes_for_them(db: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table_schema": "mailwright"})
        assert migrations.current(db.engine) == context.get_current_revision()
    assert migrations.head() == ScriptDirectory.from_config(config).get_current_head()


def test_down_and_up_again(postgres: Postgres) -> None:
    postgres.ensure_database("down_and_up")
    engine = create_engine(postgres.url("down_and_up"))
    try:
        assert migrations.current(engine) is None
        migrations.upgrade(engine)
        migrations.upgrade(engine)
        migrations.downgrade(engine, "base")
        assert migrations.current(engine) is None
        with engine.connect() as connection:
            left = connection.execute(
                text(
                    "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                    "WHERE n.nspname = 'mailwright' AND relname NOT LIKE 'alembic%'"
                )
            ).scalar_one()
            functions = connection.execute(
                text(
                    "SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
                    "WHERE n.nspname = 'mailwright'"
                )
            ).scalar_one()
        assert (left, functions) == (0, 0)
        migrations.upgrade(engine)
        migrations.check(engine)
    finally:
        engine.dispose()


def test_raw_mail_is_stored_uncompressed_and_started_data_unlogged(db: Database) -> None:
    with db.begin() as session:
        storage = session.execute(
            text(
                "SELECT attstorage FROM pg_attribute WHERE attrelid = 'mailwright.raw_messages'::regclass "
                "AND attname = 'raw'"
            )
        ).scalar_one()
        persistence = session.execute(
            text("SELECT relpersistence FROM pg_class WHERE oid = 'mailwright.data_started'::regclass")
        ).scalar_one()
    assert storage in ("e", b"e")
    assert persistence in ("u", b"u")
