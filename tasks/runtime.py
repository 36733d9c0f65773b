"""What a process holds while it works: settings, database, key ring, and a name for its leases."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

from config.settings import Settings
from schema.database import Database
from schema.ids import uuid7
from tasks.schedule.heartbeat import Heartbeat
from tasks.secrets import KeyRing, load_key_ring

LEAST_FORSAKEN_SECONDS = 5.0
"""A process that does not come on with an open transaction for as long as a lease lasts has lost its work to
others, and its locks must not keep it from them; but a busy machine may take a moment."""


class Closing(Protocol):
    """Something that holds connections."""

    def close(self) -> None:
        """Close them."""


C = TypeVar("C", bound=Closing)


@dataclass(slots=True)
class Runtime:
    """Everything an engine is given besides its session. ``owner`` names this process in leases;
    ``stopping`` is set when it should finish what is on the wire and give the rest back; one thread at a time
    is ``reading_large``: a message that lies in a file. ``held`` has, by thread, the bytes of messages that
    wait to be committed."""

    settings: Settings
    db: Database
    keyring: KeyRing
    owner: str
    heartbeat: Heartbeat
    stopping: threading.Event = field(default_factory=threading.Event)
    reading_large: threading.Lock = field(default_factory=threading.Lock)
    held: dict[int, int] = field(default_factory=dict)
    _kept: dict[Any, Closing] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, settings: Settings) -> "Runtime":
        """Raises `UserError` where the database or the key ring is not set up."""
        db = Database(
            settings.require_database_url(),
            pool=settings.database_pool,
            forsaken_seconds=max(settings.lease_seconds, LEAST_FORSAKEN_SECONDS),
        )
        return cls(
            settings=settings,
            db=db,
            keyring=load_key_ring(settings),
            owner=f"{socket.gethostname()}:{os.getpid()}:{uuid7().hex[-8:]}",
            heartbeat=Heartbeat(db, settings.lease_seconds, settings.imap_timeout_seconds),
        )

    def kept(self, make: Callable[["Runtime"], C]) -> C:
        """What ``make`` gave for this runtime at the first call; closed with it."""
        with self._lock:
            if make not in self._kept:
                self._kept[make] = make(self)
            return cast("C", self._kept[make])

    def close(self) -> None:
        """Close what is held."""
        for kept in self._kept.values():
            kept.close()
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
