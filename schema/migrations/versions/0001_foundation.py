"""The foundation: every table of the first release, its functions and its first rows."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from schema.functions import source

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

FUNCTIONS = ("allowed", "enqueue")


def upgrade() -> None:
    op.execute(source("uuid7"))
    op.execute("CREATE SEQUENCE mailwright.threads")
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("object_uid", sa.Uuid(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "changes", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_pkey")),
        schema="mailwright",
    )
    op.create_index(op.f("audit_at_idx"), "audit", ["at"], unique=False, schema="mailwright")
    op.create_table(
        "data_started",
        sa.Column("attempt_uid", sa.Uuid(), nullable=False),
        sa.Column("witness", sa.Uuid(), nullable=True),
        sa.Column("outcome", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("attempt_uid", name=op.f("data_started_pkey")),
        schema="mailwright",
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "events",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("correlation", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("events_pkey")),
        sa.UniqueConstraint("uid", name=op.f("events_uid_key")),
        schema="mailwright",
    )
    op.create_index("events_mailbox", "events", ["mailbox_id", "position"], unique=False, schema="mailwright")
    op.create_table(
        "events_pending",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("correlation", sa.Text(), nullable=True),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("events_pending_pkey")),
        schema="mailwright",
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("leases_pkey")),
        schema="mailwright",
    )
    op.create_table(
        "outbox_turns",
        sa.Column("provider_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("provider_id", name=op.f("outbox_turns_pkey")),
        schema="mailwright",
    )
    op.create_table(
        "outbox_wakes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_wakes_pkey")),
        schema="mailwright",
    )
    op.create_table(
        "providers",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="IMAP/SMTP", nullable=False),
        sa.Column("disabled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("logo", sa.LargeBinary(), nullable=True),
        sa.Column("logo_type", sa.Text(), nullable=True),
        sa.Column("receive", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("imap_host", sa.Text(), nullable=True),
        sa.Column("imap_port", sa.BigInteger(), nullable=True),
        sa.Column("imap_security", sa.Text(), server_default="tls", nullable=False),
        sa.Column("imap_authentication", sa.Text(), server_default="password", nullable=False),
        sa.Column("send", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("smtp_host", sa.Text(), nullable=True),
        sa.Column("smtp_port", sa.BigInteger(), nullable=True),
        sa.Column("smtp_security", sa.Text(), server_default="tls", nullable=False),
        sa.Column("smtp_authentication", sa.Text(), server_default="password", nullable=False),
        sa.Column("smtp_timeout", sa.BigInteger(), server_default=sa.text("40"), nullable=False),
        sa.Column("login_mode", sa.Text(), server_default="email", nullable=False),
        sa.Column("oauth_client_id", sa.Text(), nullable=True),
        sa.Column("oauth_client_secret", sa.LargeBinary(), nullable=True),
        sa.Column("oauth_token_url", sa.Text(), nullable=True),
        sa.Column("oauth_scopes", sa.Text(), nullable=True),
        sa.Column("connections_per_account", sa.BigInteger(), server_default=sa.text("3"), nullable=False),
        sa.Column("connections_per_host", sa.BigInteger(), server_default=sa.text("50"), nullable=False),
        sa.Column("messages_per_minute", sa.BigInteger(), nullable=True),
        sa.Column("max_message_size", sa.BigInteger(), nullable=True),
        sa.Column("max_recipients", sa.BigInteger(), server_default=sa.text("100"), nullable=False),
        sa.Column("sent_copy", sa.Text(), server_default="append", nullable=False),
        sa.Column("trust_condstore", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("resend_if_absent", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("ca", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(logo IS NULL) = (logo_type IS NULL) AND logo_type IN ('image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/svg+xml')",
            name=op.f("providers_logo_type_check"),
        ),
        sa.CheckConstraint(
            "ca ~ '^-----BEGIN CERTIFICATE-----' AND ca !~ 'PRIVATE KEY'", name=op.f("providers_ca_check")
        ),
        sa.CheckConstraint(
            "imap_authentication IN ('password', 'oauth2')", name=op.f("providers_imap_authentication_check")
        ),
        sa.CheckConstraint(
            "imap_security IN ('tls', 'starttls', 'none')", name=op.f("providers_imap_security_check")
        ),
        sa.CheckConstraint("kind = 'IMAP/SMTP'", name=op.f("providers_kind_check")),
        sa.CheckConstraint(
            "length(imap_host) <= 253 AND imap_host ~ '^[a-z0-9:]([a-z0-9.:-]*[a-z0-9:])?$'",
            name=op.f("providers_imap_host_check"),
        ),
        sa.CheckConstraint(
            "length(name) BETWEEN 1 AND 250 AND name !~ '[\\u0001-\\u001f\\u007f-\\u009f]'",
            name=op.f("providers_name_check"),
        ),
        sa.CheckConstraint(
            "length(smtp_host) <= 253 AND smtp_host ~ '^[a-z0-9:]([a-z0-9.:-]*[a-z0-9:])?$'",
            name=op.f("providers_smtp_host_check"),
        ),
        sa.CheckConstraint(
            "login_mode IN ('manual', 'user', 'email')", name=op.f("providers_login_mode_check")
        ),
        sa.CheckConstraint(
            "oauth_token_url ~ '^https://[^ ]+$' OR oauth_token_url ~ '^http://(localhost|127[.]0[.]0[.]1|[[]::1[]])[:/]'",
            name=op.f("providers_oauth_token_url_check"),
        ),
        sa.CheckConstraint(
            "sent_copy IN ('append', 'server', 'none')", name=op.f("providers_sent_copy_check")
        ),
        sa.CheckConstraint(
            "smtp_authentication IN ('password', 'oauth2')", name=op.f("providers_smtp_authentication_check")
        ),
        sa.CheckConstraint(
            "smtp_security IN ('tls', 'starttls', 'none')", name=op.f("providers_smtp_security_check")
        ),
        sa.CheckConstraint(
            "NOT receive OR (imap_host IS NOT NULL AND imap_port IS NOT NULL)",
            name=op.f("providers_imap_complete_check"),
        ),
        sa.CheckConstraint(
            "NOT send OR (smtp_host IS NOT NULL AND smtp_port IS NOT NULL)",
            name=op.f("providers_smtp_complete_check"),
        ),
        sa.CheckConstraint(
            "connections_per_account BETWEEN 1 AND 100", name=op.f("providers_connections_per_account_check")
        ),
        sa.CheckConstraint(
            "connections_per_host BETWEEN 1 AND 10000", name=op.f("providers_connections_per_host_check")
        ),
        sa.CheckConstraint("imap_port BETWEEN 1 AND 65535", name=op.f("providers_imap_port_check")),
        sa.CheckConstraint(
            "max_message_size BETWEEN 1 AND 1099511627776", name=op.f("providers_max_message_size_check")
        ),
        sa.CheckConstraint("max_recipients BETWEEN 1 AND 10000", name=op.f("providers_max_recipients_check")),
        sa.CheckConstraint(
            "messages_per_minute BETWEEN 1 AND 1000000", name=op.f("providers_messages_per_minute_check")
        ),
        sa.CheckConstraint("octet_length(logo) BETWEEN 1 AND 262144", name=op.f("providers_logo_size_check")),
        sa.CheckConstraint("receive OR send", name=op.f("providers_receive_or_send_check")),
        sa.CheckConstraint("smtp_port BETWEEN 1 AND 65535", name=op.f("providers_smtp_port_check")),
        sa.CheckConstraint("smtp_timeout BETWEEN 1 AND 600", name=op.f("providers_smtp_timeout_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("providers_pkey")),
        sa.UniqueConstraint("name", name=op.f("providers_name_key")),
        sa.UniqueConstraint("uid", name=op.f("providers_uid_key")),
        schema="mailwright",
    )
    op.create_index(
        "providers_lower_name_key",
        "providers",
        [sa.literal_column("lower(name)")],
        unique=True,
        schema="mailwright",
    )
    op.create_table(
        "roles",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "length(name) BETWEEN 1 AND 250 AND name !~ '[\\u0001-\\u001f\\u007f-\\u009f]'",
            name=op.f("roles_name_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("roles_pkey")),
        sa.UniqueConstraint("uid", name=op.f("roles_uid_key")),
        schema="mailwright",
    )
    op.create_index(
        "roles_name_key", "roles", [sa.literal_column("lower(name)")], unique=True, schema="mailwright"
    )
    op.create_table(
        "sinks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("sinks_pkey")),
        schema="mailwright",
    )
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "length(name) BETWEEN 1 AND 250 AND name !~ '[\\u0001-\\u001f\\u007f-\\u009f]'",
            name=op.f("users_name_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("users_pkey")),
        sa.UniqueConstraint("uid", name=op.f("users_uid_key")),
        schema="mailwright",
    )
    op.create_index(
        "users_name_key", "users", [sa.literal_column("lower(name)")], unique=True, schema="mailwright"
    )
    op.create_table(
        "mailboxes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("address_key", sa.Text(), nullable=False),
        sa.Column("provider_id", sa.BigInteger(), nullable=False),
        sa.Column("login", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=True),
        sa.Column("display_name", sa.Text(), nullable=True),
        sa.Column("receive", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("send", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("folders", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("history_days", sa.BigInteger(), nullable=True),
        sa.Column("notify_from", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("poll_seconds", sa.Double(), nullable=True),
        sa.Column("keep", sa.Text(), server_default="everything", nullable=False),
        sa.Column("send_as", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("state", sa.Text(), server_default="active", nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("paused_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("awaiting_confirmation", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("connected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("imap_refusals", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("imap_retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("smtp_refusals", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("smtp_retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("address LIKE '%_@_%'", name=op.f("mailboxes_address_check")),
        sa.CheckConstraint("keep IN ('headers', 'text', 'everything')", name=op.f("mailboxes_keep_check")),
        sa.CheckConstraint(
            "state IN ('active', 'paused', 'needs_attention', 'removing')", name=op.f("mailboxes_state_check")
        ),
        sa.CheckConstraint("history_days >= 0", name=op.f("mailboxes_history_days_check")),
        sa.CheckConstraint("length(login) BETWEEN 1 AND 320", name=op.f("mailboxes_login_check")),
        sa.CheckConstraint("poll_seconds > 0", name=op.f("mailboxes_poll_seconds_check")),
        sa.ForeignKeyConstraint(["owner_id"], ["mailwright.users.id"], name=op.f("mailboxes_owner_id_fkey")),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["mailwright.providers.id"], name=op.f("mailboxes_provider_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("mailboxes_pkey")),
        sa.UniqueConstraint("address_key", name=op.f("mailboxes_address_key_key")),
        sa.UniqueConstraint("uid", name=op.f("mailboxes_uid_key")),
        schema="mailwright",
    )
    op.create_index(
        op.f("mailboxes_owner_id_idx"), "mailboxes", ["owner_id"], unique=False, schema="mailwright"
    )
    op.create_index(
        "mailboxes_paused",
        "mailboxes",
        ["paused_until"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("state = 'paused'"),
    )
    op.create_index(
        op.f("mailboxes_provider_id_idx"), "mailboxes", ["provider_id"], unique=False, schema="mailwright"
    )
    op.create_index(
        "mailboxes_removing",
        "mailboxes",
        ["id"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("state = 'removing'"),
    )
    op.create_table(
        "operation_permissions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("role_id", sa.BigInteger(), nullable=True),
        sa.Column("allow", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "operation IN ('CanManageAdministration', 'CanManageMailboxes', 'CanReadMessages', 'CanSendMessages', 'CanViewOperations')",
            name=op.f("operation_permissions_operation_check"),
        ),
        sa.CheckConstraint(
            "num_nonnulls(user_id, role_id) = 1", name=op.f("operation_permissions_grantee_check")
        ),
        sa.ForeignKeyConstraint(
            ["role_id"],
            ["mailwright.roles.id"],
            name=op.f("operation_permissions_role_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["mailwright.users.id"],
            name=op.f("operation_permissions_user_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("operation_permissions_pkey")),
        sa.UniqueConstraint(
            "position", deferrable=True, initially="DEFERRED", name=op.f("operation_permissions_position_key")
        ),
        sa.UniqueConstraint("uid", name=op.f("operation_permissions_uid_key")),
        schema="mailwright",
    )
    op.create_index(
        op.f("operation_permissions_role_id_idx"),
        "operation_permissions",
        ["role_id"],
        unique=False,
        schema="mailwright",
    )
    op.create_index(
        op.f("operation_permissions_user_id_idx"),
        "operation_permissions",
        ["user_id"],
        unique=False,
        schema="mailwright",
    )
    op.create_table(
        "provider_domains",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("provider_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "length(domain) <= 253 AND domain ~ '^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'",
            name=op.f("provider_domains_domain_check"),
        ),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["mailwright.providers.id"], name=op.f("provider_domains_provider_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("provider_domains_pkey")),
        sa.UniqueConstraint("domain", name=op.f("provider_domains_domain_key")),
        sa.UniqueConstraint("uid", name=op.f("provider_domains_uid_key")),
        schema="mailwright",
    )
    op.create_index(
        op.f("provider_domains_provider_id_idx"),
        "provider_domains",
        ["provider_id"],
        unique=False,
        schema="mailwright",
    )
    op.create_table(
        "user_roles",
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("role_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["role_id"], ["mailwright.roles.id"], name=op.f("user_roles_role_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["mailwright.users.id"], name=op.f("user_roles_user_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "role_id", name=op.f("user_roles_pkey")),
        schema="mailwright",
    )
    op.create_index(
        op.f("user_roles_role_id_idx"), "user_roles", ["role_id"], unique=False, schema="mailwright"
    )
    op.create_table(
        "commands",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("outbound_id", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("commands_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("commands_pkey")),
        sa.UniqueConstraint("uid", name=op.f("commands_uid_key")),
        schema="mailwright",
    )
    op.create_index(
        "commands_due",
        "commands",
        ["mailbox_id", "due_at"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "commands_outbound_key", "commands", ["kind", "outbound_id"], unique=True, schema="mailwright"
    )
    op.create_table(
        "folders",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("wire_name", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("delimiter", sa.Text(), nullable=True),
        sa.Column("special_use", sa.Text(), nullable=True),
        sa.Column("attributes", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("selectable", sa.Boolean(), nullable=False),
        sa.Column("followed", sa.Boolean(), nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("resets", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("folders_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("folders_pkey")),
        sa.UniqueConstraint("uid", name=op.f("folders_uid_key")),
        schema="mailwright",
    )
    op.create_index(
        "folders_present_key",
        "folders",
        ["mailbox_id", "wire_name"],
        unique=True,
        schema="mailwright",
        postgresql_where=sa.text("gone_at IS NULL"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("outbound_uid", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("length(key) BETWEEN 1 AND 255", name=op.f("idempotency_keys_key_check")),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("idempotency_keys_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("principal", "mailbox_id", "key", name=op.f("idempotency_keys_pkey")),
        schema="mailwright",
    )
    op.create_table(
        "mailbox_secrets",
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("mailbox_secrets_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("mailbox_id", name=op.f("mailbox_secrets_pkey")),
        schema="mailwright",
    )
    op.create_table(
        "message_references",
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("thread_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("message_references_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("mailbox_id", "message_id", name=op.f("message_references_pkey")),
        schema="mailwright",
    )
    op.create_index(
        "message_references_thread",
        "message_references",
        ["mailbox_id", "thread_id"],
        unique=False,
        schema="mailwright",
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="present", nullable=False),
        sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("internal_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("in_reply_to", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("subject", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "addresses",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "headers", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False
        ),
        sa.Column("body_text", sa.Text(), nullable=True),
        sa.Column("body_html", sa.Text(), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("auto_submitted", sa.Text(), nullable=True),
        sa.Column("list_id", sa.Text(), nullable=True),
        sa.Column("thread_id", sa.BigInteger(), nullable=True),
        sa.Column("thread_subject", sa.Text(), server_default="", nullable=False),
        sa.Column("defects", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("announced", sa.Boolean(), nullable=False),
        sa.Column("outbound_uid", sa.Uuid(), nullable=True),
        sa.Column("gmail_id", sa.BigInteger(), nullable=True),
        sa.Column("email_id", sa.Text(), nullable=True),
        sa.Column("stored_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('present', 'missing', 'deleted')", name=op.f("messages_state_check")),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("messages_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("messages_pkey")),
        sa.UniqueConstraint("uid", name=op.f("messages_uid_key")),
        schema="mailwright",
    )
    op.create_index(
        "messages_digest", "messages", ["mailbox_id", "digest"], unique=False, schema="mailwright"
    )
    op.create_index(
        "messages_message_id", "messages", ["mailbox_id", "message_id"], unique=False, schema="mailwright"
    )
    op.create_index(
        "messages_missing",
        "messages",
        ["mailbox_id"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("state = 'missing'"),
    )
    op.create_index(
        "messages_newest", "messages", ["mailbox_id", "internal_at", "id"], unique=False, schema="mailwright"
    )
    op.create_index(
        "messages_thread", "messages", ["mailbox_id", "thread_id"], unique=False, schema="mailwright"
    )
    op.create_index(
        "messages_thread_subject",
        "messages",
        ["mailbox_id", "thread_subject", "sent_at"],
        unique=False,
        schema="mailwright",
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("priority", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("correlation", sa.Uuid(), server_default=sa.text("mailwright.uuid7()"), nullable=False),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("envelope_from", sa.Text(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_token", sa.BigInteger(), nullable=True),
        sa.Column("witness", sa.Uuid(), nullable=True),
        sa.Column("cancel_asked", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("smtputf8", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("eight_bit", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("last_code", sa.BigInteger(), nullable=True),
        sa.Column("last_reply", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'claimed', 'armed', 'deferred', 'sent', 'failed', 'uncertain', 'cancelled', 'expired')",
            name=op.f("outbox_state_check"),
        ),
        sa.CheckConstraint("priority BETWEEN -100 AND 100", name=op.f("outbox_priority_check")),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("outbox_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("outbox_pkey")),
        sa.UniqueConstraint("uid", name=op.f("outbox_uid_key")),
        schema="mailwright",
    )
    op.create_index(
        "outbox_due",
        "outbox",
        ["mailbox_id", sa.literal_column("priority DESC"), "due_at", "id"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("state IN ('queued', 'deferred')"),
    )
    op.create_index(
        "outbox_in_hand",
        "outbox",
        ["mailbox_id"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("state IN ('claimed', 'armed')"),
    )
    op.create_index("outbox_mailbox", "outbox", ["mailbox_id", "id"], unique=False, schema="mailwright")
    op.create_index(
        "outbox_message_id", "outbox", ["mailbox_id", "message_id"], unique=False, schema="mailwright"
    )
    op.create_index(
        "outbox_next",
        "outbox",
        ["mailbox_id", "due_at"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("state IN ('queued', 'deferred')"),
    )
    op.create_index(
        "outbox_uncertain",
        "outbox",
        ["mailbox_id"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("state = 'uncertain'"),
    )
    op.create_table(
        "outbox_lanes",
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("provider_id", sa.BigInteger(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("next_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("connections", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("resting_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_owner", sa.Text(), nullable=True),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("window_start", sa.DateTime(timezone=True), nullable=True),
        sa.Column("window_sent", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("outbox_lanes_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("mailbox_id", name=op.f("outbox_lanes_pkey")),
        schema="mailwright",
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "outbox_lanes_busy",
        "outbox_lanes",
        ["host"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("connections > 0"),
    )
    op.create_index(
        "outbox_lanes_due",
        "outbox_lanes",
        ["provider_id", "next_due_at"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("enabled AND next_due_at IS NOT NULL"),
    )
    op.create_table(
        "schedule",
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("lane", sa.Text(), server_default="sync", nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("provider_id", sa.BigInteger(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column(
            "next_poll_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("interval_seconds", sa.Double(), server_default=sa.text("30"), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_owner", sa.Text(), nullable=True),
        sa.Column("failures", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("last_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_synced_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("crashes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("asked", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("schedule_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("mailbox_id", name=op.f("schedule_pkey")),
        schema="mailwright",
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index(
        "schedule_due",
        "schedule",
        ["provider_id", "lane", "next_poll_at"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("enabled"),
    )
    op.create_index(
        "schedule_leased",
        "schedule",
        ["host"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )
    op.create_table(
        "attachments",
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("content_id", sa.Text(), nullable=True),
        sa.Column("disposition", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["mailwright.messages.id"],
            name=op.f("attachments_message_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("message_id", "part", name=op.f("attachments_pkey")),
        schema="mailwright",
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("outbound_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("armed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("stage", sa.Text(), nullable=True),
        sa.Column("code", sa.BigInteger(), nullable=True),
        sa.Column("reply", sa.Text(), nullable=True),
        sa.Column("waited_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["outbound_id"],
            ["mailwright.outbox.id"],
            name=op.f("attempts_outbound_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("attempts_pkey")),
        sa.UniqueConstraint("uid", name=op.f("attempts_uid_key")),
        schema="mailwright",
    )
    op.create_index(
        op.f("attempts_outbound_id_idx"), "attempts", ["outbound_id"], unique=False, schema="mailwright"
    )
    op.create_table(
        "folder_epochs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("folder_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("uidvalidity", sa.BigInteger(), nullable=False),
        sa.Column("uids", postgresql.INT8MULTIRANGE(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("modseq", sa.BigInteger(), nullable=True),
        sa.Column("uidnext", sa.BigInteger(), nullable=True),
        sa.Column("messages", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("flags_checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("compared_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("history_below", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state IN ('building', 'current', 'retired')", name=op.f("folder_epochs_state_check")
        ),
        sa.ForeignKeyConstraint(
            ["folder_id"],
            ["mailwright.folders.id"],
            name=op.f("folder_epochs_folder_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["mailbox_id"],
            ["mailwright.mailboxes.id"],
            name=op.f("folder_epochs_mailbox_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("folder_epochs_pkey")),
        schema="mailwright",
    )
    op.create_index(
        "folder_epochs_building_key",
        "folder_epochs",
        ["folder_id"],
        unique=True,
        schema="mailwright",
        postgresql_where=sa.text("state = 'building'"),
    )
    op.create_index(
        "folder_epochs_current_key",
        "folder_epochs",
        ["folder_id"],
        unique=True,
        schema="mailwright",
        postgresql_where=sa.text("state = 'current'"),
    )
    op.create_index(
        op.f("folder_epochs_folder_id_idx"), "folder_epochs", ["folder_id"], unique=False, schema="mailwright"
    )
    op.create_index(
        op.f("folder_epochs_mailbox_id_idx"),
        "folder_epochs",
        ["mailbox_id"],
        unique=False,
        schema="mailwright",
    )
    op.create_table(
        "outbox_content",
        sa.Column("outbound_id", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["outbound_id"],
            ["mailwright.outbox.id"],
            name=op.f("outbox_content_outbound_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("outbound_id", name=op.f("outbox_content_pkey")),
        schema="mailwright",
    )
    op.create_table(
        "outbox_recipients",
        sa.Column("outbound_id", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("code", sa.BigInteger(), nullable=True),
        sa.Column("reply", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('to', 'cc', 'bcc')", name=op.f("outbox_recipients_kind_check")),
        sa.CheckConstraint(
            "state IN ('pending', 'sent', 'deferred', 'failed', 'uncertain')",
            name=op.f("outbox_recipients_state_check"),
        ),
        sa.ForeignKeyConstraint(
            ["outbound_id"],
            ["mailwright.outbox.id"],
            name=op.f("outbox_recipients_outbound_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("outbound_id", "ordinal", name=op.f("outbox_recipients_pkey")),
        schema="mailwright",
    )
    op.create_table(
        "raw_messages",
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["mailwright.messages.id"],
            name=op.f("raw_messages_message_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("message_id", name=op.f("raw_messages_pkey")),
        schema="mailwright",
    )
    op.create_table(
        "fetch_failures",
        sa.Column("epoch_id", sa.BigInteger(), nullable=False),
        sa.Column("imap_uid", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["epoch_id"],
            ["mailwright.folder_epochs.id"],
            name=op.f("fetch_failures_epoch_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("epoch_id", "imap_uid", name=op.f("fetch_failures_pkey")),
        schema="mailwright",
    )
    op.create_table(
        "places",
        sa.Column("epoch_id", sa.BigInteger(), nullable=False),
        sa.Column("imap_uid", sa.BigInteger(), nullable=False),
        sa.Column("mailbox_id", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.Column("flags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("modseq", sa.BigInteger(), nullable=True),
        sa.Column("stub", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["epoch_id"],
            ["mailwright.folder_epochs.id"],
            name=op.f("places_epoch_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["mailwright.messages.id"],
            name=op.f("places_message_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("epoch_id", "imap_uid", name=op.f("places_pkey")),
        schema="mailwright",
    )
    op.create_index(
        op.f("places_message_id_idx"), "places", ["message_id"], unique=False, schema="mailwright"
    )
    op.create_index(
        "places_stubs",
        "places",
        ["mailbox_id"],
        unique=False,
        schema="mailwright",
        postgresql_where=sa.text("stub IS NOT NULL"),
    )
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
    op.drop_index(
        "places_stubs", table_name="places", schema="mailwright", postgresql_where=sa.text("stub IS NOT NULL")
    )
    op.drop_index(op.f("places_message_id_idx"), table_name="places", schema="mailwright")
    op.drop_table("places", schema="mailwright")
    op.drop_table("fetch_failures", schema="mailwright")
    op.drop_table("raw_messages", schema="mailwright")
    op.drop_table("outbox_recipients", schema="mailwright")
    op.drop_table("outbox_content", schema="mailwright")
    op.drop_index(op.f("folder_epochs_mailbox_id_idx"), table_name="folder_epochs", schema="mailwright")
    op.drop_index(op.f("folder_epochs_folder_id_idx"), table_name="folder_epochs", schema="mailwright")
    op.drop_index(
        "folder_epochs_current_key",
        table_name="folder_epochs",
        schema="mailwright",
        postgresql_where=sa.text("state = 'current'"),
    )
    op.drop_index(
        "folder_epochs_building_key",
        table_name="folder_epochs",
        schema="mailwright",
        postgresql_where=sa.text("state = 'building'"),
    )
    op.drop_table("folder_epochs", schema="mailwright")
    op.drop_index(op.f("attempts_outbound_id_idx"), table_name="attempts", schema="mailwright")
    op.drop_table("attempts", schema="mailwright")
    op.drop_table("attachments", schema="mailwright")
    op.drop_index(
        "schedule_leased",
        table_name="schedule",
        schema="mailwright",
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )
    op.drop_index(
        "schedule_due", table_name="schedule", schema="mailwright", postgresql_where=sa.text("enabled")
    )
    op.drop_table("schedule", schema="mailwright")
    op.drop_index(
        "outbox_lanes_due",
        table_name="outbox_lanes",
        schema="mailwright",
        postgresql_where=sa.text("enabled AND next_due_at IS NOT NULL"),
    )
    op.drop_index(
        "outbox_lanes_busy",
        table_name="outbox_lanes",
        schema="mailwright",
        postgresql_where=sa.text("connections > 0"),
    )
    op.drop_table("outbox_lanes", schema="mailwright")
    op.drop_index(
        "outbox_uncertain",
        table_name="outbox",
        schema="mailwright",
        postgresql_where=sa.text("state = 'uncertain'"),
    )
    op.drop_index(
        "outbox_next",
        table_name="outbox",
        schema="mailwright",
        postgresql_where=sa.text("state IN ('queued', 'deferred')"),
    )
    op.drop_index("outbox_message_id", table_name="outbox", schema="mailwright")
    op.drop_index("outbox_mailbox", table_name="outbox", schema="mailwright")
    op.drop_index(
        "outbox_in_hand",
        table_name="outbox",
        schema="mailwright",
        postgresql_where=sa.text("state IN ('claimed', 'armed')"),
    )
    op.drop_index(
        "outbox_due",
        table_name="outbox",
        schema="mailwright",
        postgresql_where=sa.text("state IN ('queued', 'deferred')"),
    )
    op.drop_table("outbox", schema="mailwright")
    op.drop_index("messages_thread_subject", table_name="messages", schema="mailwright")
    op.drop_index("messages_thread", table_name="messages", schema="mailwright")
    op.drop_index("messages_newest", table_name="messages", schema="mailwright")
    op.drop_index(
        "messages_missing",
        table_name="messages",
        schema="mailwright",
        postgresql_where=sa.text("state = 'missing'"),
    )
    op.drop_index("messages_message_id", table_name="messages", schema="mailwright")
    op.drop_index("messages_digest", table_name="messages", schema="mailwright")
    op.drop_table("messages", schema="mailwright")
    op.drop_index("message_references_thread", table_name="message_references", schema="mailwright")
    op.drop_table("message_references", schema="mailwright")
    op.drop_table("mailbox_secrets", schema="mailwright")
    op.drop_table("idempotency_keys", schema="mailwright")
    op.drop_index(
        "folders_present_key",
        table_name="folders",
        schema="mailwright",
        postgresql_where=sa.text("gone_at IS NULL"),
    )
    op.drop_table("folders", schema="mailwright")
    op.drop_index("commands_outbound_key", table_name="commands", schema="mailwright")
    op.drop_index(
        "commands_due",
        table_name="commands",
        schema="mailwright",
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.drop_table("commands", schema="mailwright")
    op.drop_index(op.f("user_roles_role_id_idx"), table_name="user_roles", schema="mailwright")
    op.drop_table("user_roles", schema="mailwright")
    op.drop_index(
        op.f("provider_domains_provider_id_idx"), table_name="provider_domains", schema="mailwright"
    )
    op.drop_table("provider_domains", schema="mailwright")
    op.drop_index(
        op.f("operation_permissions_user_id_idx"), table_name="operation_permissions", schema="mailwright"
    )
    op.drop_index(
        op.f("operation_permissions_role_id_idx"), table_name="operation_permissions", schema="mailwright"
    )
    op.drop_table("operation_permissions", schema="mailwright")
    op.drop_index(
        "mailboxes_removing",
        table_name="mailboxes",
        schema="mailwright",
        postgresql_where=sa.text("state = 'removing'"),
    )
    op.drop_index(op.f("mailboxes_provider_id_idx"), table_name="mailboxes", schema="mailwright")
    op.drop_index(
        "mailboxes_paused",
        table_name="mailboxes",
        schema="mailwright",
        postgresql_where=sa.text("state = 'paused'"),
    )
    op.drop_index(op.f("mailboxes_owner_id_idx"), table_name="mailboxes", schema="mailwright")
    op.drop_table("mailboxes", schema="mailwright")
    op.drop_index("users_name_key", table_name="users", schema="mailwright")
    op.drop_table("users", schema="mailwright")
    op.drop_table("sinks", schema="mailwright")
    op.drop_index("roles_name_key", table_name="roles", schema="mailwright")
    op.drop_table("roles", schema="mailwright")
    op.drop_index("providers_lower_name_key", table_name="providers", schema="mailwright")
    op.drop_table("providers", schema="mailwright")
    op.drop_table("outbox_wakes", schema="mailwright")
    op.drop_table("outbox_turns", schema="mailwright")
    op.drop_table("leases", schema="mailwright")
    op.drop_table("events_pending", schema="mailwright")
    op.drop_index("events_mailbox", table_name="events", schema="mailwright")
    op.drop_table("events", schema="mailwright")
    op.drop_table("data_started", schema="mailwright")
    op.drop_index(op.f("audit_at_idx"), table_name="audit", schema="mailwright")
    op.drop_table("audit", schema="mailwright")
    op.execute("DROP SEQUENCE mailwright.threads")
    op.execute("DROP FUNCTION mailwright.uuid7()")
