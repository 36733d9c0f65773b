"""The foundation: every table of the first release, its functions and its first rows."""

from alembic import op

from schema.functions import source
from schema.tables import METADATA

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

FUNCTIONS = ("allowed", "enqueue")


def upgrade() -> None:
    op.execute(source("uuid7"))
    METADATA.create_all(op.get_bind())
    for table, column in (("raw_messages", "raw"), ("outbox_content", "content")):
        op.execute(f"ALTER TABLE mailwright.{table} ALTER COLUMN {column} SET STORAGE EXTERNAL")
    for name in FUNCTIONS:
        op.execute(source(name))
    op.execute(source("first_rows"))


def downgrade() -> None:
    op.execute("DROP FUNCTION mailwright.enqueue(text, jsonb, text)")
    op.execute("DROP FUNCTION mailwright.accept_message(bigint, jsonb, text, text)")
    op.execute("DROP FUNCTION mailwright.recipient_addresses(jsonb)")
    op.execute("DROP FUNCTION mailwright.allowed(text, text)")
    METADATA.drop_all(op.get_bind())
    op.execute("DROP FUNCTION mailwright.uuid7()")
