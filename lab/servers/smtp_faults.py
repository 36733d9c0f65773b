"""An SMTP server that misbehaves on purpose, at a chosen step.

    with FaultySmtp({"rcpt": Answer(b"452 4.5.3 later\\r\\n"), "dot": Hang()}) as server:
        ... server.port, server.accepted, server.commands

Steps: connect, greeting, ehlo, starttls, auth, mail, rcpt, data, body, dot, rset, quit. A fault is one
action, or a list of them for the first, second, … time the step comes (then it behaves). It listens on
loopback, one thread a connection, and takes what a plain Postfix would take.
"""

import base64
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from lab.ports import LOOPBACK, LabError, wait_until
from lab.servers.certificates import Certificate

LONGEST: Final = 120.0
"""Seconds after which a forgotten connection ends by itself."""


@dataclass(frozen=True, slots=True)
class Drip:
    """A byte every ``pause`` seconds: of a line without end, or of the right answer."""

    pause: float = 0.2
    endless: bool = True


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing more, and keep the connection. In ``body``: stop reading."""


@dataclass(frozen=True, slots=True)
class Stall:
    """The first half of the right answer, and then nothing, for ever. In ``body``: as `Hang`."""


@dataclass(frozen=True, slots=True)
class Close:
    """Hang up; ``reset``: with RST."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Send these bytes instead of the right answer, then ``close`` or go on. In ``body``: while reading."""

    raw: bytes
    close: bool = False


@dataclass(frozen=True, slots=True)
class Endless:
    """Repeat ``raw`` without end: many lines, or one line that never ends."""

    raw: bytes = b"250-more\r\n"


@dataclass(frozen=True, slots=True)
class Slow:
    """Read ``chunk`` bytes every ``pause`` seconds: of the content in ``body``, elsewhere of the command that
    is answered (commands are so short that the kernel takes them whole: the client sees a late answer)."""

    chunk: int = 65_536
    pause: float = 0.05


@dataclass(frozen=True, slots=True)
class Inject:
    """In ``starttls``: agree, and send this plaintext in the same segment."""

    raw: bytes = b"250-evil.example\r\n250 AUTH PLAIN\r\n"


Fault = Drip | Hang | Stall | Close | Answer | Endless | Slow | Inject
Faults = Mapping[str, Fault | Sequence[Fault | None]]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that the server took: it answered the dot with 250, or would have (``answered`` False)."""

    mail_from: str
    recipients: tuple[str, ...]
    content: bytes
    answered: bool


EXTENSIONS: Final = ("PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


class FaultySmtp:
    """The server. ``port`` is its port; ``accepted`` what it took; ``commands`` every line it read;
    ``most_open`` the most connections that were open at once.

    ``extensions`` are EHLO's lines; AUTH is among them unless ``auth`` is empty, STARTTLS where a
    ``certificate`` is given and ``tls`` (TLS at once) is off, unless ``strip_starttls``. Any login is
    right. ``receive_buffer``: SO_RCVBUF, in bytes. ``finish()`` ends what hangs.
    """

    def __init__(
        self,
        faults: Faults | None = None,
        *,
        certificate: Certificate | None = None,
        tls: bool = False,
        strip_starttls: bool = False,
        extensions: Sequence[str] = EXTENSIONS,
        auth: str = "PLAIN LOGIN",
        receive_buffer: int | None = None,
    ) -> None:
        self.accepted: list[Accepted] = []
        self.commands: list[bytes] = []
        self.errors: list[BaseException] = []
        self.connections = 0
        self.most_open = 0
        self.extensions = (*extensions, *((f"AUTH {auth}",) if auth else ()))
        self.strip_starttls = strip_starttls
        self.tls_at_once = tls
        self.context = _server_context(certificate) if certificate else None
        self.over = threading.Event()
        self._faults: dict[str, list[Fault | None] | Fault] = {
            step: fault if isinstance(fault, Fault) else list(fault) for step, fault in (faults or {}).items()
        }
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind((LOOPBACK, 0))
        self.host = LOOPBACK
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        """Listen."""
        self._listener.listen(128)
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cut everything; raises what went wrong in the server itself."""
        self.finish()
        for thread in self._threads:
            thread.join(10)
            if thread.is_alive():
                raise LabError("a thread of the misbehaving SMTP server does not end")
        if self.errors and error is None:
            raise self.errors[0]

    def finish(self) -> None:
        """Stop listening and cut all connections."""
        self.over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def wait_accepted(self, count: int = 1, seconds: float = 20.0) -> None:
        """Wait until ``count`` messages were taken."""
        wait_until(lambda: len(self.accepted) >= count, seconds, f"{count} messages accepted")

    def fault(self, step: str) -> Fault | None:
        """What to do wrong at ``step`` this time."""
        with self._lock:
            fault = self._faults.get(step)
            if isinstance(fault, list):
                return fault.pop(0) if fault else None
            return fault

    def track(self, old: socket.socket | None, new: socket.socket) -> None:
        """Know the socket that must be cut at the end."""
        with self._lock:
            self._open.discard(old or new)
            self._open.add(new)
            self.most_open = max(self.most_open, len(self._open))

    def forget(self, sock: socket.socket) -> None:
        """The socket is closed."""
        with self._lock:
            self._open.discard(sock)

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                continue  # the client went at once, or this is the end
            self.connections += 1
            sock.settimeout(LONGEST)
            self.track(None, sock)
            self._start(self._serve, _Conversation(self, sock))

    def _serve(self, conversation: "_Conversation") -> None:
        try:
            conversation.run()
        except (OSError, _Over):
            pass  # the client left, as clients of a misbehaving server do
        except Exception as error:  # noqa: BLE001 - handed to the test at the end
            self.errors.append(error)
        finally:
            self.forget(conversation.sock)
            conversation.sock.close()


def _server_context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.chain_file, certificate.key_file)
    return context


class _Over(Exception):
    """This connection ends here."""


class _Conversation:
    """One connection."""

    def __init__(self, server: FaultySmtp, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.secured = False
        self.buffer = b""
        self.last = b""
        self.mail_from: str | None = None
        self.recipients: list[str] = []

    def run(self) -> None:
        fault = self.server.fault("connect")
        if fault is not None:
            self._misbehave(fault, b"")
        if self.server.tls_at_once:
            self._secure()
        self._say("greeting", b"220 faulty.example ESMTP\r\n")
        while True:
            self._command(self._line())

    def _command(self, line: bytes) -> None:
        self.server.commands.append(line)
        verb = line.split(b" ")[0].upper()
        match verb:
            case b"EHLO" | b"HELO":
                self._say("ehlo", self._ehlo())
            case b"STARTTLS":
                self._starttls()
            case b"AUTH":
                self._auth(line)
            case b"MAIL":
                if self._say("mail", b"250 2.1.0 Ok\r\n"):
                    self.mail_from, self.recipients = _path(line), []
            case b"RCPT":
                right = b"250 2.1.5 Ok\r\n"
                if self.mail_from is None:
                    right = b"503 5.5.1 Error: need MAIL command\r\n"
                if self._say("rcpt", right) and self.mail_from is not None:
                    self.recipients.append(_path(line))
            case b"DATA":
                right = b"354 End data with <CR><LF>.<CR><LF>\r\n"
                if not self.recipients:
                    right = b"554 5.5.1 Error: no valid recipients\r\n"
                if self._say("data", right) and self.recipients:
                    self._body()
            case b"RSET":
                self.mail_from, self.recipients = None, []
                self._say("rset", b"250 2.0.0 Ok\r\n")
            case b"QUIT":
                self._say("quit", b"221 2.0.0 Bye\r\n")
                raise _Over
            case _:
                self.sock.sendall(b"502 5.5.2 Error: command not recognized\r\n")

    def _ehlo(self) -> bytes:
        lines = ["faulty.example", *self.server.extensions]
        if self.server.context is not None and not self.secured and not self.server.strip_starttls:
            lines.append("STARTTLS")
        marked = [f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]
        return "".join(f"{line}\r\n" for line in marked).encode()

    def _starttls(self) -> None:
        agreed = b"220 2.0.0 Ready to start TLS\r\n"
        fault = self.server.fault("starttls")
        if isinstance(fault, Inject):
            self.sock.sendall(agreed + fault.raw)
        elif fault is not None:
            self._misbehave(fault, agreed)
            return
        else:
            self.sock.sendall(agreed)
        self._secure()

    def _secure(self) -> None:
        if self.server.context is None:
            raise LabError("the misbehaving SMTP server has no certificate")
        plain = self.sock
        self.sock = self.server.context.wrap_socket(plain, server_side=True)
        self.server.track(plain, self.sock)
        self.secured = True
        self.buffer = b""

    def _auth(self, line: bytes) -> None:
        words = line.split(b" ")
        if words[1].upper() == b"LOGIN":
            for prompt in (b"Username:", b"Password:"):
                self.sock.sendall(b"334 " + base64.b64encode(prompt) + b"\r\n")
                self.server.commands.append(self._line())
        self._say("auth", b"235 2.7.0 Authentication successful\r\n")

    def _body(self) -> None:
        fault = self.server.fault("body")
        if isinstance(fault, Answer):
            self.sock.sendall(fault.raw)
            if fault.close:
                raise _Over
        elif fault is not None and not isinstance(fault, Slow):
            self._misbehave(fault, b"")
        content = self._content(fault if isinstance(fault, Slow) else None)
        answered = self.server.fault("dot")
        took = Accepted(
            self.mail_from or "",
            tuple(self.recipients),
            content,
            answered is None or (isinstance(answered, Answer) and answered.raw.startswith(b"250")),
        )
        refused = isinstance(answered, Answer) and answered.raw[:1] in b"45"
        if not refused:
            self.server.accepted.append(took)
        self.mail_from, self.recipients = None, []
        reply = b"250 2.0.0 Ok: queued as 4F2A\r\n"
        if answered is None:
            self.sock.sendall(reply)
        else:
            self._misbehave(answered, reply)

    def _content(self, slow: Slow | None) -> bytes:
        """Read to the dot and take the doubled dots away, by lines, as RFC 5321 §4.5.2 says."""
        lines: list[bytes] = []
        while True:
            line = self._line(slow)
            if line == b".":
                return b"".join(each + b"\r\n" for each in lines)
            lines.append(line[1:] if line.startswith(b".") else line)

    def _line(self, slow: Slow | None = None) -> bytes:
        """The next line, ended by CRLF and nothing else."""
        while b"\r\n" not in self.buffer:
            if slow is not None:
                self.server.over.wait(slow.pause)
            received = self.sock.recv(slow.chunk if slow is not None else 65_536)
            if not received:
                raise _Over
            self.buffer += received
        self.last, _, self.buffer = self.buffer.partition(b"\r\n")
        return self.last

    def _say(self, step: str, right: bytes) -> bool:
        """Answer as is right, or as the fault says; whether the answer was a good one."""
        fault = self.server.fault(step)
        if fault is None:
            self.sock.sendall(right)
            return True
        self._misbehave(fault, right)
        return not isinstance(fault, Answer) or fault.raw[:1] in b"23"

    def _misbehave(self, fault: Fault, right: bytes) -> None:
        """Do it; returns only where the conversation goes on."""
        match fault:
            case Hang():
                self._hang()
            case Stall():
                self.sock.sendall(right[: len(right) // 2])
                self._hang()
            case Slow(chunk=chunk, pause=pause):
                if self.server.over.wait(min(LONGEST, len(self.last) / chunk * pause)):
                    raise _Over
                self.sock.sendall(right)
            case Close(reset=reset):
                if reset:
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                raise _Over
            case Drip():
                self._drip(fault, right)
            case Answer(raw=raw, close=close):
                self.sock.sendall(raw)
                if close:
                    raise _Over
            case Endless(raw=raw):
                while not self.server.over.is_set():
                    self.sock.sendall(raw)
            case Inject():
                raise LabError(f"{type(fault).__name__} does not belong here")

    def _hang(self) -> None:
        self.server.over.wait(LONGEST)
        raise _Over

    def _drip(self, drip: Drip, right: bytes) -> None:
        """A multi-line reply that goes on for ever, or just the right one."""
        begun = time.monotonic()
        endless = (right[:3] or b"220") + b"-"
        text = endless + b"x" * 100_000 if drip.endless else right
        for byte in text:
            self.sock.sendall(bytes([byte]))
            if self.server.over.wait(drip.pause) or time.monotonic() - begun > LONGEST:
                raise _Over


def _path(line: bytes) -> str:
    return line.partition(b"<")[2].partition(b">")[0].decode()
