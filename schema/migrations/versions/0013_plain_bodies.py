"""What is read of a message is stored as it is: compressing it took Postgres twice as long as storing it."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

COLUMNS = ("addresses", "headers", "body_text", "body_html")


def upgrade() -> None:
    _store("EXTERNAL")


def downgrade() -> None:
    _store("EXTENDED")


def _store(storage: str) -> None:
    for column in COLUMNS:
        op.execute(f"ALTER TABLE mailwright.messages ALTER COLUMN {column} SET STORAGE {storage}")
