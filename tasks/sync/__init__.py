"""Following mailboxes: what lies on the server, kept in step with Postgres."""

from tasks.sync.engine import sync_due, sync_mailbox

__all__ = ["sync_due", "sync_mailbox"]
