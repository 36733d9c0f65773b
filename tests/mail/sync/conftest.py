"""A mailbox on a misbehaving server, and questions to its database."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import text

from lab.servers.imap_faults import PASSWORD, Faults
from lab.world import Ports, add_mailbox, add_provider, sync_now
from tasks.runtime import Runtime
from tests.mail.sync.odd_imap import Folders, OddImap


@dataclass(frozen=True, slots=True)
class Followed:
    """A mailbox of ours on ``server``."""

    runtime: Runtime
    server: OddImap
    id: int

    def sync(self, passes: int = 1) -> None:
        """Sync now; folders that failed do not wait."""
        for _ in range(passes):
            self.rows("UPDATE mailwright.folders SET retry_at = now() WHERE retry_at < now() + interval '2h'")
            sync_now(self.runtime, self.id)

    def rows(self, statement: str, **parameters: object) -> list[Any]:
        """Ask the database, or tell it."""
        with self.runtime.db.begin() as session:
            result = session.execute(text(statement), parameters)
            return list(result.all()) if result.returns_rows else []  # type: ignore[attr-defined]

    def stored(self, folder: str = "INBOX") -> dict[int, bytes | None]:
        """UID to raw bytes of a folder's places; None for a stub."""
        return {
            row.imap_uid: None if row.raw is None else bytes(row.raw)
            for row in self.rows(
                "SELECT p.imap_uid, r.raw FROM mailwright.places p "
                "JOIN mailwright.folder_epochs e ON e.id = p.epoch_id AND e.state = 'current' "
                "JOIN mailwright.folders f ON f.id = e.folder_id AND f.gone_at IS NULL "
                "LEFT JOIN mailwright.raw_messages r USING (message_id) WHERE f.name = :folder",
                folder=folder,
            )
        }

    def events(self) -> Counter[str]:
        """How many events of each type were committed."""
        return Counter(row.type for row in self.rows("SELECT type FROM mailwright.events_pending"))

    def schedule(self) -> Any:
        """The mailbox's row in the schedule, with ``wait``: seconds until it is due."""
        return self.rows(
            "SELECT *, extract(epoch FROM next_poll_at - now()) AS wait FROM mailwright.schedule "
            "WHERE mailbox_id = :id",
            id=self.id,
        )[0]

    def folder(self, name: str) -> Any:
        """A folder's row."""
        return self.rows("SELECT * FROM mailwright.folders WHERE name = :n AND gone_at IS NULL", n=name)[0]

    def messages(self, state: str = "present") -> int:
        """How many messages there are."""
        return int(self.rows("SELECT count(*) AS n FROM mailwright.messages WHERE state = :s", s=state)[0].n)

    def same_as_server(self) -> bool:
        """Whether each folder's places are what the server has, byte for byte."""
        return all(
            self.stored(name.decode()) == held
            for name, held in self.server.folders.items()
            if name not in self.server.hidden
        )


Follow = Callable[..., Followed]


@pytest.fixture
def follow(runtime: Runtime) -> Iterator[Follow]:
    """Start a server with these messages and add a mailbox on it, not synced yet."""
    with ExitStack() as stack:

        def start(
            messages: list[bytes] | Folders = (),  # type: ignore[assignment]
            faults: Faults | None = None,
            provider: dict[str, object] | None = None,
            password: str = PASSWORD,
            **fields: object,
        ) -> Followed:
            server = stack.enter_context(OddImap(messages, faults))
            ports = Ports(imap=server.port)
            provider_id = add_provider(runtime, ports, **(provider or {}))  # type: ignore[arg-type]
            mailbox = add_mailbox(runtime, provider_id, "anna@test.example", password, **fields)
            return Followed(runtime, server, mailbox)

        yield start
