"""A mailbox that sends, on the misbehaving SMTP server."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from lab.servers.smtp_faults import Faults, FaultySmtp
from lab.world import Ports, add_mailbox, add_provider
from tasks import outbound
from tasks.access import SYSTEM
from tasks.runtime import Runtime

ADDRESS = "anna@test.example"


@dataclass
class Post:
    """One mailbox's queue, in this process."""

    runtime: Runtime
    server: FaultySmtp
    mailbox_id: int
    address: str = ADDRESS
    queued: list[UUID] = field(default_factory=list)

    def enqueue(self, to: object = "bob@remote.example", **fields: Any) -> UUID:
        """Put a message into the queue and commit."""
        message = {"to": to, "subject": "Hello", "text": "Good morning.\n", **fields}
        with self.runtime.db.begin() as session:
            self.queued.append(outbound.enqueue(SYSTEM, session, self.address, message).uid)
        return self.queued[-1]

    def dispatch(self, seconds: float = 20.0) -> outbound.Dispatched:
        """Serve what is due now."""
        return outbound.dispatch(SYSTEM, self.runtime, seconds)

    def show(self, uid: UUID) -> dict[str, Any]:
        with self.runtime.db.begin() as session:
            return outbound.show(SYSTEM, session, uid)

    def state(self, uid: UUID) -> str:
        return str(self.show(uid)["state"])

    def events(self, uid: UUID) -> list[str]:
        with self.runtime.db.begin() as session:
            return list(
                session.execute(
                    text("SELECT type FROM mailwright.events_pending WHERE subject = :uid ORDER BY id"),
                    {"uid": str(uid)},
                ).scalars()
            )

    def sql(self, statement: str, **given: Any) -> Any:
        """Run a statement and commit; its first value where it has one."""
        with self.runtime.db.begin() as session:
            result = session.execute(text(statement), given)
            return result.scalar() if result.returns_rows else None

    def due_again(self) -> None:
        """Let the deferred be due now."""
        self.sql("UPDATE mailwright.outbox SET due_at = now() WHERE state IN ('deferred', 'queued')")
        self.sql("UPDATE mailwright.outbox_lanes SET next_due_at = now()")


@pytest.fixture
def post(runtime: Runtime) -> Iterator[Callable[..., Post]]:
    """Make a `Post` on a server with the given faults; ``provider`` are fields of its row."""
    servers: list[FaultySmtp] = []

    def make(faults: Faults | None = None, *, smtp: dict[str, Any] | None = None, **provider: Any) -> Post:
        server = FaultySmtp(faults, **(smtp or {}))
        server.__enter__()
        servers.append(server)
        provider_id = add_provider(
            runtime, Ports(smtp=server.port), **{"smtp_timeout": 5, "sent_copy": "none", **provider}
        )
        return Post(runtime, server, add_mailbox(runtime, provider_id, ADDRESS, "secret"))

    yield make
    for server in servers:
        server.__exit__(None, None, None)
