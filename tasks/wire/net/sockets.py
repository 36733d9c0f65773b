"""Sockets that wait under a budget, for libraries that take a socket and know no deadline.

They are always non-blocking underneath; ``settimeout`` and ``setblocking`` of a library change
nothing. Errors are ours (`TimedOut`, `Disconnected`), which smtplib and imaplib let through; the
end of the stream is read as ``b""`` as usual.
"""

import socket
import ssl
from typing import Any, Final

from tasks.wire.net.budget import Budget
from tasks.wire.net.patience import READ, WRITE, Patience
from tasks.wire.net.values import Step

MORE: Final = getattr(socket, "MSG_MORE", 0)
"""Linux only."""
RECORD: Final = 16384
"""Bytes in one TLS record; a write that must wait is repeated with the same bytes."""


class PatientSocket(socket.socket):
    """A plain TCP socket under ``patience``, which is set once, right after it is made."""

    patience: Patience

    @property
    def budget(self) -> Budget:
        """What the waiting is counted in; may be exchanged between operations."""
        return self.patience.budget

    @budget.setter
    def budget(self, budget: Budget) -> None:
        self.patience.budget = budget

    @property
    def step(self) -> Step:
        """The step that errors name."""
        return self.patience.step

    @step.setter
    def step(self, step: Step) -> None:
        self.patience.step = step

    def settimeout(self, value: float | None, /) -> None:
        """Stay non-blocking: the budget rules."""
        super().settimeout(0.0)

    def setblocking(self, flag: bool, /) -> None:
        """Stay non-blocking: the budget rules."""
        super().settimeout(0.0)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Read up to ``bufsize`` bytes, waiting for the first."""
        while True:
            self.patience.wait(self.fileno(), READ)
            try:
                return super().recv(bufsize, flags)
            except BlockingIOError:  # woken for nothing
                continue
            except OSError as error:
                raise self.patience.disconnected() from error

    def recv_now(self, bufsize: int) -> bytes | None:
        """What has arrived, ``b""`` at the end of the stream, ``None`` where nothing has; never waits."""
        try:
            return super().recv(bufsize)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self.patience.disconnected() from error

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0, /) -> int:
        """Read into ``buffer``, waiting for the first byte."""
        while True:
            self.patience.wait(self.fileno(), READ)
            try:
                return super().recv_into(buffer, nbytes, flags)
            except BlockingIOError:  # woken for nothing
                continue
            except OSError as error:
                raise self.patience.disconnected() from error

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Hand the kernel what it takes, at least a byte. An error means that it took none."""
        while True:
            try:
                return super().send(data, flags)
            except BlockingIOError:
                self.patience.wait(self.fileno(), WRITE)
            except OSError as error:
                raise self.patience.disconnected() from error

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Write all of ``data``."""
        with memoryview(data) as whole, whole.cast("B") as view:
            sent = self.send(view, flags)
            while sent < len(view):
                sent += self.send(view[sent:], flags)

    def sendall_more(self, data: Any) -> None:
        """`sendall` where another write follows at once: the kernel may keep the last segment for it."""
        self.sendall(data, MORE)


class PatientTlsSocket(ssl.SSLSocket):
    """A TLS socket under ``patience``, which is set once, before the handshake."""

    patience: Patience

    @property
    def budget(self) -> Budget:
        """What the waiting is counted in; may be exchanged between operations."""
        return self.patience.budget

    @budget.setter
    def budget(self, budget: Budget) -> None:
        self.patience.budget = budget

    @property
    def step(self) -> Step:
        """The step that errors name."""
        return self.patience.step

    @step.setter
    def step(self, step: Step) -> None:
        self.patience.step = step

    def settimeout(self, value: float | None, /) -> None:
        """Stay non-blocking: the budget rules."""
        super().settimeout(0.0)

    def setblocking(self, flag: bool, /) -> None:
        """Stay non-blocking: the budget rules."""
        super().settimeout(0.0)

    def handshake(self) -> None:
        """Shake hands under the budget; `ssl.SSLError` and `OSError` come out as they are."""
        while True:
            try:
                return self.do_handshake()
            except ssl.SSLWantReadError:
                self.patience.wait(self.fileno(), READ)
            except ssl.SSLWantWriteError:
                self.patience.wait(self.fileno(), WRITE)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Read up to ``buflen`` bytes, waiting for the first."""
        while True:
            try:
                return super().recv(buflen, flags)
            except OSError as error:
                self._wait_or_raise(error)

    def recv_now(self, bufsize: int) -> bytes | None:
        """What has arrived, ``b""`` at the end of the stream, ``None`` where nothing has; never waits."""
        try:
            return super().recv(bufsize)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as error:
            raise self.patience.disconnected() from error

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Read into ``buffer``, waiting for the first byte."""
        while True:
            try:
                return super().recv_into(buffer, nbytes, flags)
            except OSError as error:
                self._wait_or_raise(error)

    def send(self, data: Any, flags: int = 0) -> int:
        """Write up to one record of ``data``, all of it."""
        with memoryview(data) as whole, whole.cast("B")[:RECORD] as record:
            while True:
                try:
                    return super().send(record, flags)
                except OSError as error:
                    self._wait_or_raise(error)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Write all of ``data``."""
        with memoryview(data) as whole, whole.cast("B") as view:
            sent = 0
            while sent < len(view):
                sent += self.send(view[sent : sent + RECORD], flags)

    def sendall_more(self, data: Any) -> None:
        """`sendall`: TLS records cannot wait for the next write."""
        self.sendall(data)

    def _wait_or_raise(self, error: OSError) -> None:
        if isinstance(error, ssl.SSLWantReadError):
            self.patience.wait(self.fileno(), READ)
        elif isinstance(error, ssl.SSLWantWriteError):
            self.patience.wait(self.fileno(), WRITE)
        else:
            raise self.patience.disconnected() from error


AnySocket = PatientSocket | PatientTlsSocket
