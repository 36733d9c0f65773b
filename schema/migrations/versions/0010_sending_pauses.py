"""A mailbox's sending rests until a time, with a reason; keys are looked up by themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, kind in (
        ("paused_at", sa.DateTime(timezone=True)),
        ("paused_until", sa.DateTime(timezone=True)),
        ("paused_for", sa.Text()),
    ):
        op.add_column("outbox_lanes", sa.Column(name, kind, nullable=True), schema="mailwright")
    op.create_index("idempotency_keys_key", "idempotency_keys", ["key"], unique=False, schema="mailwright")


def downgrade() -> None:
    op.drop_index("idempotency_keys_key", table_name="idempotency_keys", schema="mailwright")
    for name in ("paused_for", "paused_until", "paused_at"):
        op.drop_column("outbox_lanes", name, schema="mailwright")
