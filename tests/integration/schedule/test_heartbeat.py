"""Leases are renewed while their work moves on."""

from sqlalchemy import text

from config.queues import Lane
from lab.ports import wait_until
from lab.world import Ports, add_mailboxes, add_provider
from tasks import schedule
from tasks.runtime import Runtime
from tasks.schedule import Heartbeat

LEASE_SECONDS = 2.0


def until_of(runtime: Runtime, mailbox_id: int) -> float:
    """Seconds that a lease has left."""
    left = text(
        "SELECT extract(epoch FROM lease_until - now()) FROM mailwright.schedule WHERE mailbox_id = :id"
    )
    with runtime.db.begin() as session:
        return float(session.execute(left, {"id": mailbox_id}).scalar_one())


def test_a_lease_whose_row_is_locked_keeps_no_other_from_being_renewed(runtime: Runtime) -> None:
    provider = add_provider(runtime, Ports(imap=143))
    add_mailboxes(runtime, provider, ["anna@test.example", "ben@test.example"], "x")
    locked, free = sorted(schedule.claim(runtime, Lane.SYNC, 2), key=lambda claim: claim.mailbox_id)
    expired = text("UPDATE mailwright.schedule SET lease_until = now()")
    lock = text("SELECT FROM mailwright.schedule WHERE mailbox_id = :id FOR UPDATE")
    heartbeat = Heartbeat(runtime.db, LEASE_SECONDS, patience=60)
    try:
        with runtime.db.begin() as session:
            session.execute(expired)
        with heartbeat.holding(locked.lease), heartbeat.holding(free.lease):
            with runtime.db.begin() as commit:
                commit.execute(lock, {"id": locked.mailbox_id})
                wait_until(lambda: until_of(runtime, free.mailbox_id) > 0, 20, "the free lease renewed")
                assert until_of(runtime, locked.mailbox_id) <= 0
            wait_until(lambda: until_of(runtime, locked.mailbox_id) > 0, 20, "the other renewed too")
    finally:
        heartbeat.stop()
