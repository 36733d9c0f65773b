"""The HTTP API, served in a thread of this process, and asked as any program would ask it."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from config.settings import Settings
from lab.ports import LOOPBACK
from schema.database import Database
from tasks import access
from tasks.access import Actor, Scope
from worker.api.server import make_server

ADMINISTRATOR: Final = Actor("administrator")
STARTS_WITHIN: Final = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; ``said`` is its JSON."""

    status: int
    headers: Mapping[str, str]
    said: Any

    @property
    def code(self) -> str:
        """The error code of a problem."""
        return str(self.said["code"])


class HttpDoor:
    """A client on one connection, which it opens again where the server closed it."""

    def __init__(self, port: int, key: str | None) -> None:
        self.key = key
        self._connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request as it is, and read the response."""
        every = dict(headers or {})
        if self.key is not None:
            every.setdefault("Authorization", f"Bearer {self.key}")
        self._connection.request(method, path, body, every)
        response = self._connection.getresponse()
        content = response.read()
        return Answer(response.status, dict(response.getheaders()), json.loads(content))

    def post(self, path: str, value: Any, idempotency_key: str | None = None) -> Answer:
        """Send JSON."""
        headers = {"Content-Type": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        return self.ask("POST", path, json.dumps(value).encode(), headers)

    def enqueue(self, mailbox: str, message: Any, idempotency_key: str | None = None) -> Answer:
        """Put one message into a mailbox's queue."""
        return self.post(outbox_of(mailbox), message, idempotency_key)

    def enqueue_many(self, mailbox: str, items: Sequence[Any]) -> Answer:
        """Put many, each ``{"message": …, "idempotency_key": …}``."""
        return self.post(f"{outbox_of(mailbox)}/batch", {"messages": items})

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def outbox_of(mailbox: str) -> str:
    """The path of a mailbox's outbox."""
    return f"/v1/mailboxes/{quote(mailbox, safe='')}/outbox"


def add_key(db: Database, user: str = "administrator", scopes: Sequence[Scope] = tuple(Scope)) -> str:
    """A new API key of a user."""
    with db.begin() as session:
        return access.add_key(ADMINISTRATOR, session, user, scopes)[1]


@contextmanager
def served(settings: Settings, ring: Callable[[], None] = lambda: None) -> Iterator[int]:
    """The API on a free port of loopback, which is given."""
    server, listening = make_server(settings, ring, LOOPBACK, 0)
    thread = threading.Thread(target=server.run, args=([listening],), name="http", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + STARTS_WITHIN
        while not server.started:
            if time.monotonic() > deadline or not thread.is_alive():
                raise RuntimeError("the HTTP server does not start")
            time.sleep(0.01)
        yield int(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
