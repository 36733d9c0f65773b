"""Following mailboxes: what lies on the server, kept in step with Postgres."""

from tasks.sync.engine import compare_all, sync_due, sync_mailbox

__all__ = ["compare_all", "sync_due", "sync_mailbox"]
