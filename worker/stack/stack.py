"""Postgres and Valkey together, as one home's stack: one lock, one pair of addresses.

HOME/stack.lock   held while a stack runs (flock), names the holder's pid
HOME/stack.env    the addresses, for every other ``mailwright`` command; gone when the stack stops
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

from config.errors import InternalError, UserError
from worker.stack import place
from worker.stack.leftovers import stop_leftovers
from worker.stack.postgres import Postgres
from worker.stack.process import Process
from worker.stack.record import ADDRESSES
from worker.stack.valkey import Valkey

_LOCK: Final = "stack.lock"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the two servers answer; neither URL holds a secret."""

    database_url: str
    broker_url: str

    def environment(self) -> dict[str, str]:
        """The settings that point a process of ours at them."""
        return {"MAILWRIGHT_DATABASE_URL": self.database_url, "MAILWRIGHT_BROKER_URL": self.broker_url}


class AlreadyRunning(UserError):
    """The home's stack is held by another living process."""

    code = "already_running"


class Lock:
    """The home's lock: whoever has it may run the home's servers. It dies with its holder."""

    def __init__(self, home: Path) -> None:
        self._path = home / _LOCK
        self._file: TextIO | None = None

    def take(self) -> None:
        """Take it at once. Raises `AlreadyRunning`, naming the holder, if it is taken."""
        try:
            file = self._path.open("a+")
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}. Is it another user's?") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise AlreadyRunning(
                f"the stack of {self._path.parent} is already running (process {holder}). "
                "`mailwright status` shows it, `mailwright down` stops it."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give it back; harmless when it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Stack:
    """The embedded Postgres and Valkey of one home, also as a context manager that starts and stops them."""

    def __init__(self, home: Path, *, durable: bool = True) -> None:
        self.home = home.expanduser().absolute()
        self.postgres = Postgres(self.home, durable=durable)
        self.valkey = Valkey(self.home)
        self._lock = Lock(self.home)
        self._held = False

    def start(self) -> Addresses:
        """Start both and wait until they answer.

        What a killed process left running for this home is stopped first. Raises `AlreadyRunning` when
        another process runs this home's stack, `UserError` when a server cannot start; then nothing runs.
        """
        if self._held:
            self.revive()
            return self.addresses
        place.make_private(self.home)
        self._lock.take()
        self._held = True
        try:
            stop_leftovers(self.home)
            self.revive()
            _write_addresses(self.home, self.addresses)
        except BaseException:
            self.stop()
            raise
        return self.addresses

    def revive(self) -> None:
        """Start what does not run, at the address it had."""
        if not self._held:
            raise InternalError("the stack was not started by this process")
        self.postgres.start()
        self.valkey.start()

    def stop(self) -> None:
        """Stop both and forget the addresses. Harmless if stopped."""
        if not self._held:
            return
        try:
            (self.home / ADDRESSES).unlink(missing_ok=True)
            self.valkey.stop()
            self.postgres.stop()
        finally:
            self._held = False
            self._lock.release()

    def discard(self) -> None:
        """Kill both and remove their data, wherever it lies. Raises `AlreadyRunning` if not ours."""
        if not self._held:
            place.make_private(self.home)
            self._lock.take()
        try:
            self.valkey.kill()
            self.postgres.kill()
            stop_leftovers(self.home)
            self.valkey.discard()
            self.postgres.discard()
            for name in ("postgres", "valkey"):
                place.remove_tree(self.home / name)
            (self.home / ADDRESSES).unlink(missing_ok=True)
        finally:
            self._held = False
            self._lock.release()

    @property
    def addresses(self) -> Addresses:
        """Where the servers answer; the same until the stack stops. `InternalError` before its start."""
        return Addresses(self.postgres.url(), self.valkey.url)

    def status(self) -> dict[str, Process | None]:
        """The server processes by name; None where one does not run."""
        return {"postgres": self.postgres.process, "valkey": self.valkey.process}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _write_addresses(home: Path, addresses: Addresses) -> None:
    """Write them whole or not at all: other commands read the file at any moment."""
    building = home / f"{ADDRESSES}.new"
    lines = "".join(f"{name}='{value}'\n" for name, value in addresses.environment().items())
    building.write_text(f"# Written by the running stack; gone when it stops.\n{lines}")
    building.replace(home / ADDRESSES)
