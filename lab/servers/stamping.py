"""A proxy between IMAP clients and Dovecot that ends TLS, and notes when the server said EXISTS to whom.

    client ══ TLS ══ proxy ── plain, loopback ── Dovecot
                       └── stamps: "anna@example.org 81723.402113", a line for each EXISTS said to an IDLE

The time is the kernel's: when Dovecot's bytes reached the proxy's socket (SO_TIMESTAMPNS), so what the proxy
takes for itself counts against who listens behind it. One process, one loop, for thousands of sessions.

    python stamping.py PLAN.json
"""

import base64
import json
import re
import selectors
import signal
import socket
import ssl
import struct
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

from lab.ports import LOOPBACK, Supervised, free_port
from lab.servers.certificates import Certificate
from lab.servers.tree import open_tree

CHUNK: Final = 1 << 16
STAMP: Final = 35
"""SO_TIMESTAMPNS of Linux, and the type of what it adds to a read; the socket module does not name it."""
NANO: Final = 1_000_000_000
EXISTS: Final = re.compile(rb"(?m)^\* \d+ EXISTS\r$")
LOGIN: Final = re.compile(rb'(?i) (?:AUTHENTICATE PLAIN ([A-Za-z0-9+/=]+)\r\n|LOGIN "?([^ "]+))')
IDLE: Final = re.compile(rb"(?i)(?:^|\n)\S+ IDLE\r\n$")


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the process is told; ``upstream_port`` is where Dovecot listens without TLS."""

    port: int
    upstream_port: int
    chain_file: str
    key_file: str
    stamps_file: str


class StampingProxy:
    """The process, started: TLS on ``port``, the notes in `stamps`."""

    def __init__(self, upstream_port: int, certificate: Certificate) -> None:
        self.host = LOOPBACK
        self.port = free_port()
        self._tree = open_tree("stamping", None)
        self._stamps = self._tree.path / "stamps"
        self._stamps.touch()
        plan = Plan(
            port=self.port,
            upstream_port=upstream_port,
            chain_file=str(certificate.chain_file),
            key_file=str(certificate.key_file),
            stamps_file=str(self._stamps),
        )
        file = self._tree.path / "plan.json"
        file.write_text(json.dumps(asdict(plan)))
        self._process = Supervised(
            [sys.executable, "-P", __file__, str(file)], log=self._tree.path / "stamping.log"
        )

    def __enter__(self) -> Self:
        self._process.wait_ready(lambda: "ready" in self._process.tail())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stop()
        self._tree.remove()

    def mark(self) -> int:
        """Where the notes end now."""
        return self._stamps.stat().st_size

    def stamps(self, since: int = 0) -> dict[str, float]:
        """When each login was first told EXISTS behind a mark, in seconds of the monotonic clock."""
        found: dict[str, float] = {}
        with self._stamps.open() as lines:
            lines.seek(since)
            for line in lines:
                login, at = line.split()
                found.setdefault(login, float(at))
        return found


class _Side:
    """One end of a session: its socket, and what could not be written to it yet."""

    __slots__ = ("events", "other", "pending", "session", "sock")

    def __init__(self, session: "_Session", sock: socket.socket) -> None:
        self.session = session
        self.sock = sock
        self.pending = b""
        self.events = selectors.EVENT_READ
        self.other = self


class _Session:
    """A client and its connection to Dovecot."""

    __slots__ = ("client", "greeted", "idle", "login", "server")

    def __init__(self, client: ssl.SSLSocket, server: socket.socket) -> None:
        self.client, self.server = _Side(self, client), _Side(self, server)
        self.client.other, self.server.other = self.server, self.client
        self.greeted = False
        self.idle = False
        self.login = ""


class _Proxy:
    def __init__(self, plan: Plan, stamps: TextIO) -> None:
        self._plan = plan
        self._stamps = stamps
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(plan.chain_file, plan.key_file)
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server((LOOPBACK, plan.port), backlog=1000)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, None)

    def run(self) -> None:
        """Serve for ever."""
        while True:
            for key, ready in self._selector.select():
                if key.data is None:
                    self._accept()
                elif key.data.sock.fileno() >= 0:  # its other end may have closed it in this round
                    self._serve(key.data, ready)

    def _accept(self) -> None:
        plain, _ = self._listener.accept()
        try:
            server = socket.create_connection((LOOPBACK, self._plan.upstream_port), 10)
        except OSError:
            plain.close()
            return
        server.setsockopt(socket.SOL_SOCKET, STAMP, 1)
        for each in (plain, server):
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        session = _Session(client, server)
        self._selector.register(client, selectors.EVENT_READ, session.client)

    def _serve(self, side: _Side, ready: int) -> None:
        session = side.session
        try:
            if not session.greeted:
                self._greet(session)
                return
            if ready & selectors.EVENT_WRITE:
                self._write(side)
            if ready & selectors.EVENT_READ:
                self._from_server(session) if side is session.server else self._from_client(session)
        except (ssl.SSLWantReadError, BlockingIOError):
            pass
        except ssl.SSLWantWriteError:
            self._want(side, selectors.EVENT_READ | selectors.EVENT_WRITE)
        except (OSError, EOFError):
            self._close(session)

    def _greet(self, session: _Session) -> None:
        client = session.client.sock
        assert isinstance(client, ssl.SSLSocket)
        client.do_handshake()
        session.greeted = True
        self._want(session.client, selectors.EVENT_READ)
        self._selector.register(session.server.sock, selectors.EVENT_READ, session.server)

    def _from_client(self, session: _Session) -> None:
        """Read until TLS wants more: what it holds decrypted wakes no selector."""
        while True:
            data = session.client.sock.recv(CHUNK)
            if not data:
                raise EOFError
            if found := LOGIN.search(data):
                login = base64.b64decode(found[1]).split(b"\0")[1] if found[1] else found[2]
                session.login = login.decode()
            session.idle = IDLE.search(data) is not None
            self._pass_on(session.server, data)

    def _from_server(self, session: _Session) -> None:
        data, extra, _, _ = session.server.sock.recvmsg(CHUNK, 64)
        if not data:
            raise EOFError
        if session.idle and EXISTS.search(data):
            seconds, nanos = struct.unpack("@ll", extra[0][2])
            ago = time.time_ns() - (seconds * NANO + nanos)
            self._stamps.write(f"{session.login} {time.monotonic() - ago / NANO:.6f}\n")
        self._pass_on(session.client, data)

    def _pass_on(self, to: _Side, data: bytes) -> None:
        to.pending += data
        self._write(to)

    def _write(self, side: _Side) -> None:
        """Write what goes; while some is left, nothing more is read for it."""
        try:
            while side.pending:
                side.pending = side.pending[side.sock.send(side.pending) :]
        except (ssl.SSLWantWriteError, BlockingIOError):
            self._want(side, side.events | selectors.EVENT_WRITE)
            self._want(side.other, side.other.events & ~selectors.EVENT_READ)
            return
        if side.events & selectors.EVENT_WRITE:
            self._want(side, side.events & ~selectors.EVENT_WRITE)
            self._want(side.other, side.other.events | selectors.EVENT_READ)

    def _want(self, side: _Side, events: int) -> None:
        if events == side.events:
            return
        if not side.events:
            self._selector.register(side.sock, events, side)
        elif not events:
            self._selector.unregister(side.sock)
        else:
            self._selector.modify(side.sock, events, side)
        side.events = events

    def _close(self, session: _Session) -> None:
        for side in (session.client, session.server):
            if side.sock.fileno() in self._selector.get_map():
                self._selector.unregister(side.sock)
            side.sock.close()


def main(plan: Plan) -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Path(plan.stamps_file).open("a", buffering=1) as stamps:
        proxy = _Proxy(plan, stamps)
        print("ready", flush=True)
        proxy.run()


if __name__ == "__main__":
    main(Plan(**json.loads(Path(sys.argv[1]).read_text())))
