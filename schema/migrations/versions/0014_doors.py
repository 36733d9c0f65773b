"""API keys; the doors take many messages at once; a role for the SQL door."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from schema.functions import source

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# A principal is a user, in any case of letters; tasks that named none were "celery" and are the administrator's.
PRINCIPALS = """
    UPDATE mailwright.idempotency_keys AS k SET principal = n.name
    FROM (
        SELECT DISTINCT ON (w.name, i.mailbox_id, i.key) i.principal, i.mailbox_id, i.key, w.name
        FROM mailwright.idempotency_keys AS i
        CROSS JOIN LATERAL (
            SELECT CASE i.principal WHEN 'celery' THEN 'administrator' ELSE lower(i.principal) END AS name
        ) AS w
        ORDER BY w.name, i.mailbox_id, i.key, i.principal = w.name DESC, i.created_at
    ) AS n
    WHERE (k.principal, k.mailbox_id, k.key) = (n.principal, n.mailbox_id, n.key) AND n.principal <> n.name
"""


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("api_keys_digest_check")),
        sa.CheckConstraint("cardinality(scopes) > 0", name=op.f("api_keys_scopes_check")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["mailwright.users.id"], name=op.f("api_keys_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("api_keys_pkey")),
        sa.UniqueConstraint("uid", name=op.f("api_keys_uid_key")),
        schema="mailwright",
    )
    op.create_index(op.f("api_keys_user_id_idx"), "api_keys", ["user_id"], unique=False, schema="mailwright")
    op.execute(PRINCIPALS)
    op.execute("DROP FUNCTION mailwright.accept_message(bigint, jsonb, text, text)")
    op.execute(source("doors"))
    op.execute(source("doors_role"))


def downgrade() -> None:
    """The role stays: it belongs to the whole server, and other databases may use it."""
    op.execute("""
        DO $$ BEGIN
            IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'mailwright_enqueue') THEN
                REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mailwright FROM mailwright_enqueue;
                REVOKE ALL ON SCHEMA mailwright FROM mailwright_enqueue;
            END IF;
        END $$
    """)
    op.execute("DROP FUNCTION mailwright.enqueue_many(text, jsonb[], text[])")
    op.execute("DROP FUNCTION mailwright.sending_mailbox(text)")
    op.execute("DROP FUNCTION mailwright.refuse(text)")
    op.execute("DROP FUNCTION mailwright.accept_messages(bigint, jsonb[], text[], text)")
    op.execute("DROP FUNCTION mailwright.check_message(jsonb, text, bigint)")
    op.execute(source("enqueue"))
    op.drop_table("api_keys", schema="mailwright")
