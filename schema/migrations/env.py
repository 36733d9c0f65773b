"""Alembic's entry point; the connection is handed in by `schema.migrations`."""

from alembic import context
from sqlalchemy import text

from schema.tables.all import METADATA
from schema.tables.base import SCHEMA

connection = context.config.attributes["connection"]
connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
# A role named like our schema would make it the default one, which Alembic then compares as nameless.
connection.execute(text("SET LOCAL search_path TO public"))
connection.dialect.default_schema_name = "public"
context.configure(
    connection=connection,
    target_metadata=METADATA,
    version_table_schema=SCHEMA,
    include_schemas=True,
    include_name=lambda name, kind, parents: (
        (kind != "schema" or name == SCHEMA) and (kind != "table" or name != "alembic_version")
    ),
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
