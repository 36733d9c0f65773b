"""A message that arrives is heard of at once, through a session that waits in IDLE on a real Dovecot."""

from collections.abc import Callable
from typing import Any

from lab.corpus import small
from lab.servers.dovecot import Dovecot
from lab.world import Ports, add_mailbox, add_provider, sync_now
from tasks.runtime import Runtime
from tests.mail.conftest import Account
from tests.mail.watch.conftest import Start

CONNECTED = "SELECT count(connected_at) = :n FROM mailwright.watches"
RECEIVED = "SELECT count(*) = :n FROM mailwright.events_pending WHERE type = 'message.received'"
NEVER = "UPDATE mailwright.schedule SET next_poll_at = now() + interval '1 day'"


def test_a_delivered_message_is_announced_without_a_poll(
    runtime: Runtime,
    dovecot: Dovecot,
    account: Account,
    start: Start,
    rows: Callable[..., list[Any]],
    eventually: Callable[..., None],
) -> None:
    ports = Ports(imap=dovecot.imaps_port, imap_security="tls", ca=dovecot.ca_file)
    mailbox = add_mailbox(runtime, add_provider(runtime, ports), account.address, account.password)
    sync_now(runtime, mailbox)
    rows(NEVER)
    start(syncing=True)
    eventually(CONNECTED, n=1)

    for count, raw in enumerate(small(3, seed=1), start=1):
        dovecot.deliver(account.address, raw)
        eventually(RECEIVED, n=count)
        rows(NEVER)
