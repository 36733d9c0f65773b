"""A mailbox that sends: on the misbehaving SMTP server, and on the recording one with a real Dovecot."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from imapclient import IMAPClient
from sqlalchemy import text

from lab.servers.dovecot import Dovecot
from lab.servers.recording import Behaviour, RecordingSmtp
from lab.servers.smtp_faults import Faults, FaultySmtp
from lab.world import Ports, add_mailbox, add_provider, sync_now
from tasks import outbound
from tasks.access import SYSTEM
from tasks.runtime import Runtime
from tests.mail.conftest import Account

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


@dataclass
class Scene:
    """A mailbox on a real Dovecot that sends through the recording server."""

    runtime: Runtime
    dovecot: Dovecot
    smtp: RecordingSmtp
    account: Account
    id: int

    def enqueue(self, to: object = "bob@far.example", **fields: Any) -> UUID:
        """Put a message into the queue and commit."""
        message = {"to": to, "subject": "Hello", "text": "Good morning.\n", **fields}
        with self.runtime.db.begin() as session:
            return outbound.enqueue(SYSTEM, session, self.account.address, message).uid

    def send(self, to: object = "bob@far.example", **fields: Any) -> UUID:
        """Put a message into the queue, and have it sent."""
        uid = self.enqueue(to, **fields)
        self.dispatch()
        return uid

    def dispatch(self) -> None:
        """Send what is due."""
        outbound.dispatch(SYSTEM, self.runtime, 20)

    def file(self) -> None:
        """The server puts what it took into Sent, as some do."""
        with IMAPClient("127.0.0.1", self.dovecot.imap_port, ssl=False) as program:
            program.login(self.account.address, self.account.password)
            for each in self.smtp.accepted():
                program.append("Sent", self.smtp.message(each.sha256), ("\\Seen",))

    def in_sent(self) -> int:
        """How many copies there are."""
        return len(self.dovecot.files(self.account.address, "Sent"))

    def look(self, *, later: bool = False) -> None:
        """What housekeeping does, at once or when the grace is over, and a sync after it."""
        if later:
            self.rows("UPDATE mailwright.attempts SET ended_at = ended_at - interval '11 minutes'")
        outbound.look_for_evidence(self.runtime)
        self.sync()

    def sync(self) -> None:
        """Sync the mailbox now."""
        sync_now(self.runtime, self.id)

    def show(self, uid: UUID) -> dict[str, Any]:
        with self.runtime.db.begin() as session:
            return outbound.show(SYSTEM, session, uid)

    def state(self, uid: UUID) -> str:
        return str(self.show(uid)["state"])

    def rows(self, statement: str, **given: object) -> list[Any]:
        """Run a statement and commit; its rows where it has some."""
        with self.runtime.db.begin() as session:
            result = session.execute(text(statement), given)
            return list(result.all()) if result.returns_rows else []  # type: ignore[attr-defined]

    def events(self, uid: UUID) -> list[tuple[str, dict[str, Any]]]:
        """Types and facts of a message's events, in order."""
        found = self.rows(
            "SELECT type, data FROM mailwright.events_pending WHERE subject = :uid ORDER BY id", uid=str(uid)
        )
        return [(row.type, row.data) for row in found]


Stage = Callable[..., Scene]


@pytest.fixture
def scene(runtime: Runtime, dovecot: Dovecot, account: Account) -> Iterator[Stage]:
    """Set the scene for a behaviour of the SMTP server; ``provider`` are fields of its row."""
    with ExitStack() as stack:

        def start(behaviour: Behaviour | None = None, **provider: object) -> Scene:
            smtp = stack.enter_context(RecordingSmtp(behaviour, keep=True))
            ports = Ports(imap=dovecot.imap_port, smtp=smtp.port)
            provider_id = add_provider(runtime, ports, **{"smtp_timeout": 2, **provider})  # type: ignore[arg-type]
            mailbox = add_mailbox(runtime, provider_id, account.address, account.password)
            return Scene(runtime, dovecot, smtp, account, mailbox)

        yield start
