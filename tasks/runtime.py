"""What a process holds while it works: settings, database, key ring, and a name for its leases."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from config.settings import Settings
from schema.database import Database
from schema.ids import uuid7
from tasks.schedule.heartbeat import Heartbeat
from tasks.secrets import KeyRing, load_key_ring


@dataclass(slots=True)
class Runtime:
    """Everything an engine is given besides its session. ``owner`` names this process in leases;
    ``stopping`` is set when it should finish what is on the wire and give the rest back."""

    settings: Settings
    db: Database
    keyring: KeyRing
    owner: str
    heartbeat: Heartbeat
    stopping: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def open(cls, settings: Settings) -> "Runtime":
        """Raises `UserError` where the database or the key ring is not set up."""
        db = Database(settings.require_database_url(), pool=settings.database_pool)
        return cls(
            settings=settings,
            db=db,
            keyring=load_key_ring(settings),
            owner=f"{socket.gethostname()}:{os.getpid()}:{uuid7().hex[-8:]}",
            heartbeat=Heartbeat(db, settings.lease_seconds, settings.imap_timeout_seconds),
        )

    def close(self) -> None:
        """Close what is held."""
        self.heartbeat.stop()
        self.db.close()


_current: Runtime | None = None


def install_runtime(runtime: Runtime | None) -> None:
    """Make ``runtime`` what `current_runtime` gives in this process; None takes it away."""
    global _current
    _current = runtime


@contextmanager
def current_runtime() -> Iterator[Runtime]:
    """The runtime of this process, for task functions, which cannot be handed one."""
    if _current is None:
        raise RuntimeError("this process has installed no runtime")
    yield _current
