"""Access tokens are refreshed once, ahead of time, by whoever comes first, and never after a refusal."""

from lab.servers.dovecot import Dovecot
from lab.servers.token_server import TokenServer
from lab.world import sync_now
from schema.tables.mailboxes import Mailbox
from tasks.runtime import Runtime
from tests.mail.oauth.conftest import Rows


def test_a_sync_refreshes_what_is_over_and_logs_in(
    runtime: Runtime, token_server: TokenServer, oauth_dovecot: Dovecot, mailbox: Mailbox, rows: Rows
) -> None:
    oauth_dovecot.deliver(mailbox.address, b"Subject: hello\r\n\r\nyou\r\n")

    sync_now(runtime, mailbox.id, passes=2)

    assert [row["subject"] for row in rows("SELECT subject FROM mailwright.messages")] == ["hello"]
    assert token_server.asked["refresh_token"] == 1
    assert rows("SELECT last_error FROM mailwright.schedule") == [{"last_error": None}]
