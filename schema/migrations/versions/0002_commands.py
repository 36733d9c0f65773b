"""The queue of changes that flow back: what a command is about, and how far it came."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("commands", sa.Column("message_id", sa.BigInteger(), nullable=True), schema="mailwright")
    op.add_column("commands", sa.Column("folder_id", sa.BigInteger(), nullable=True), schema="mailwright")
    op.add_column("commands", sa.Column("target_id", sa.BigInteger(), nullable=True), schema="mailwright")
    for name in ("add_flags", "remove_flags"):
        op.add_column(
            "commands",
            sa.Column(
                name, postgresql.ARRAY(postgresql.TEXT()), server_default=sa.text("'{}'"), nullable=False
            ),
            schema="mailwright",
        )
    op.add_column("commands", sa.Column("content", sa.LargeBinary(), nullable=True), schema="mailwright")
    op.execute("ALTER TABLE mailwright.commands ALTER COLUMN content SET STORAGE EXTERNAL")
    op.add_column("commands", sa.Column("requested_by", sa.Text(), nullable=True), schema="mailwright")
    op.add_column(
        "commands", sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True), schema="mailwright"
    )
    op.add_column(
        "commands", sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True), schema="mailwright"
    )
    op.create_foreign_key(
        op.f("commands_message_id_fkey"),
        "commands",
        "messages",
        ["message_id"],
        ["id"],
        source_schema="mailwright",
        referent_schema="mailwright",
        ondelete="CASCADE",
    )
    op.create_check_constraint(
        op.f("commands_kind_check"),
        "commands",
        "kind IN ('append_sent', 'append', 'mark', 'move', 'copy', 'delete')",
        schema="mailwright",
    )
    op.create_check_constraint(
        op.f("commands_state_check"),
        "commands",
        "state IN ('queued', 'told', 'done', 'failed', 'void')",
        schema="mailwright",
    )
    op.drop_index("commands_due", table_name="commands", schema="mailwright")
    op.create_index(
        "commands_due",
        "commands",
        ["mailbox_id", "due_at"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'told')"),
        schema="mailwright",
    )
    op.create_index(
        "commands_message",
        "commands",
        ["message_id"],
        unique=False,
        postgresql_where=sa.text("message_id IS NOT NULL"),
        schema="mailwright",
    )


def downgrade() -> None:
    op.execute("DELETE FROM mailwright.commands WHERE kind <> 'append_sent'")
    op.execute("UPDATE mailwright.commands SET state = 'failed' WHERE state IN ('told', 'void')")
    op.drop_index("commands_message", table_name="commands", schema="mailwright")
    op.drop_index("commands_due", table_name="commands", schema="mailwright")
    op.create_index(
        "commands_due",
        "commands",
        ["mailbox_id", "due_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
        schema="mailwright",
    )
    op.drop_constraint(op.f("commands_state_check"), "commands", type_="check", schema="mailwright")
    op.drop_constraint(op.f("commands_kind_check"), "commands", type_="check", schema="mailwright")
    op.drop_constraint(op.f("commands_message_id_fkey"), "commands", type_="foreignkey", schema="mailwright")
    for column in (
        "ended_at",
        "sent_at",
        "requested_by",
        "content",
        "remove_flags",
        "add_flags",
        "target_id",
        "folder_id",
        "message_id",
    ):
        op.drop_column("commands", column, schema="mailwright")
