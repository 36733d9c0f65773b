"""Templates of outgoing mail, and replies by the id of what they answer."""

import sqlalchemy as sa
from alembic import op

from schema.functions import source

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

NOW = """\
        SELECT m.number, coalesce(w.whole, m.message) AS message, idempotency_keys[m.number] AS key,
               coalesce(c.fault, w.fault) AS fault, c.rank, c.starts, c.ends, c.digest, mailwright.uuid7() AS uid
        FROM unnest(messages) WITH ORDINALITY AS m (message, number)
        CROSS JOIN LATERAL
            mailwright.check_message(m.message, idempotency_keys[m.number], most_recipients) AS c
        CROSS JOIN LATERAL mailwright.compose_message(
            box, CASE WHEN c.fault IS NULL AND m.message ?| '{template,reply_to_message}' THEN m.message END
        ) AS w
"""
BEFORE = """\
        SELECT m.number, m.message, idempotency_keys[m.number] AS key, c.*, mailwright.uuid7() AS uid
        FROM unnest(messages) WITH ORDINALITY AS m (message, number)
        CROSS JOIN LATERAL
            mailwright.check_message(m.message, idempotency_keys[m.number], most_recipients) AS c
"""


def upgrade() -> None:
    op.create_table(
        "templates",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("html", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("text IS NOT NULL OR html IS NOT NULL", name=op.f("templates_body_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("templates_pkey")),
        sa.UniqueConstraint("name", name=op.f("templates_name_key")),
        sa.UniqueConstraint("uid", name=op.f("templates_uid_key")),
        schema="mailwright",
    )
    op.execute(source("composing"))
    op.execute(source("doors"))


def downgrade() -> None:
    op.execute(source("doors").replace(NOW, BEFORE))
    op.execute("DROP FUNCTION mailwright.compose_message(bigint, jsonb)")
    op.drop_table("templates", schema="mailwright")
