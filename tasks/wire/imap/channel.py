"""One connection: a socket under a budget, the scanner's buffer, tags, and who is talking.

IMAPClient and our own commands read through the same buffer, so neither can swallow the other's bytes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from tasks.wire import net
from tasks.wire.imap.errors import (
    CommandRefused,
    Disconnected,
    FolderUnavailable,
    ProtocolError,
    clean,
    farewell,
    refusal,
)
from tasks.wire.imap.scanner import DEFAULT_MAX_LITERAL, Continuation, Data, Event, Junk, Scanner, Status

CHUNK: Final = 1 << 18
"""Bytes asked from the socket at once where much is to come."""
SMALL_CHUNK: Final = 1 << 13
PROGRESS: Final = 1 << 16
"""Bytes that buy a streaming operation a fresh budget: a slow line is no dead one, a drip is."""
MOST_JUNK: Final = 100
"""Lines in one operation that are no IMAP."""
MOST_BYTES: Final = 1 << 26
"""Bytes of one operation's answer where it is not streamed."""

Steps = Callable[[str, float], None]
"""Told the name of a step that ended well and the seconds it took."""


def no_steps(_step: str, _seconds: float) -> None:
    """Nobody listens."""


class Channel:
    """A connection to ``endpoint``; each operation may wait ``timeout`` seconds in total."""

    def __init__(self, endpoint: net.Endpoint, timeout: float, connect_timeout: float, steps: Steps) -> None:
        self.endpoint = endpoint
        self.alive = True
        self.scanner = Scanner()
        self._timeout = timeout
        self._steps = steps
        self._tags = 0
        self._busy = False
        self._junk = 0
        self._streaming = False
        self._unpaid = 0
        self._waited = 0.0
        budget = net.Budget(timeout)
        with self.step("resolve"):
            addresses = net.find(endpoint)
        with self.step("connect"):
            self.sock: net.AnySocket = net.connect(endpoint, addresses, budget, connect_timeout)
        if endpoint.security is net.Security.TLS:
            with self.step("tls"):
                self.sock = net.wrap(self.sock, endpoint, budget, net.Step.TLS)
        self.at(net.Step.GREETING)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Tell how long a step took, if it went well."""
        begun = time.monotonic()
        yield
        self._steps(name, time.monotonic() - begun)

    def at(self, step: net.Step) -> None:
        """Name the step that errors of the socket are to tell, and begin a fresh budget."""
        self.sock.step = step
        self.renew()

    def renew(self) -> None:
        """Begin a fresh budget of waiting."""
        self._waited = max(self._waited, self.sock.budget.waited)
        self.sock.budget = net.Budget(self._timeout)
        self._unpaid = 0

    def longest_wait(self) -> float:
        """Seconds of the longest wait under one budget since this was asked last."""
        longest, self._waited = max(self._waited, self.sock.budget.waited), 0.0
        return longest

    @contextmanager
    def operation(
        self, *, max_literal: int = DEFAULT_MAX_LITERAL, streaming: bool = False, ending: bool = False
    ) -> Iterator[None]:
        """One operation at a time; an error, or leaving its answer half read, ends the session.

        A plain refusal does not, unless it is ``ending``. A ``streaming`` operation has an answer of
        any length and gets a fresh budget for each `PROGRESS`.
        """
        if self._busy:
            raise RuntimeError("an answer of this session is still being read")
        if not self.alive:
            raise Disconnected("This session has ended; open another.")
        self._busy = True
        self._junk = 0
        self._streaming = streaming
        self.scanner.max_literal = max_literal
        whole = False
        try:
            self.renew()
            yield
            whole = True
        except net.Disconnected as error:
            ended = Disconnected(str(error))
            ended.before_login = error.step in (net.Step.GREETING, net.Step.STARTTLS)
            raise ended from error
        except (CommandRefused, FolderUnavailable):
            whole = not ending
            raise
        finally:
            self._busy = False
            if not whole:
                self.cut()

    def start_tls(self) -> None:
        """Shake hands after the server agreed to STARTTLS; a byte behind its reply is `net.Injected`."""
        assert isinstance(self.sock, net.PatientSocket)
        if self.scanner.buffered:
            raise net.Injected(
                f"{self.endpoint} sent plaintext after agreeing to STARTTLS, which only an attacker does",
                self.endpoint,
                net.Step.STARTTLS,
                "Nothing was sent to it. Choose SSL/TLS, or use another network.",
            )
        self.sock = net.start_tls(self.sock, self.endpoint, self.sock.budget)

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def tag(self) -> bytes:
        """A new tag."""
        self._tags += 1
        return b"W%d" % self._tags

    def send(self, command: bytes) -> bytes:
        """Send a command under a new tag and return the tag."""
        tag = self.tag()
        self.write(tag + b" " + command + b"\r\n")
        return tag

    def run(self, command: bytes, name: str, told: Callable[[Data | Status], None]) -> Status:
        """Send a command, tell its untagged responses, return its OK; raises `refusal` on NO and BAD."""
        tag = self.send(command)
        return done(self.finish(tag, told), name)

    def finish(self, tag: bytes, told: Callable[[Data | Status], None]) -> Status:
        """Read up to the reply with ``tag``, whatever it is."""
        while True:
            match self.response():
                case Status(tag=found) as status if found == tag:
                    return status
                case Continuation():
                    raise ProtocolError("The server asks for more where nothing is to come.")
                case Data() | Status() as response:
                    told(response)

    def response(self) -> Data | Status | Continuation:
        """The next response. Junk lines are passed over, BYE and strange tags are raised."""
        while True:
            event = self._event()
            match event:
                case Junk():
                    self.count_junk()
                case Status(kind="BYE"):
                    raise farewell(event.response_code, clean(event.text))
                case Data() | Status() | Continuation():
                    return event

    def count_junk(self) -> None:
        """Bear one more line that is no IMAP, or not."""
        self._junk += 1
        if self._junk > MOST_JUNK:
            raise ProtocolError("The server sends line after line that is not IMAP.")

    def _event(self) -> Event:
        while (event := self.scanner.next_event()) is None:
            self._receive()
        return event

    def _receive(self) -> None:
        data = self.sock.recv(CHUNK if self._streaming else SMALL_CHUNK)
        if not data:
            raise Disconnected("The server closed the connection without a word.")
        self.scanner.feed(data)
        self._unpaid += len(data)
        if self._streaming:
            if self._unpaid >= PROGRESS:
                self.renew()
        elif self._unpaid > MOST_BYTES:
            raise ProtocolError("The server's answer has no end.")

    def read_line(self, longest: int) -> bytes:
        """A line with CRLF, for imaplib."""
        while (line := self.scanner.take_line(longest)) is None:
            self._receive()
        return line + b"\r\n"

    def read_exactly(self, count: int) -> bytes:
        """``count`` bytes, for imaplib's literals, none of which is a message."""
        if count > self.scanner.max_literal:
            raise ProtocolError("The server sent an unbearably long literal.")
        while (data := self.scanner.take(count)) is None:
            self._receive()
        return data

    def cut(self) -> None:
        """Close the socket, now; never raises."""
        self.alive = False
        with suppress(OSError):
            self.sock.close()


def done(status: Status, name: str) -> Status:
    """The reply if it is OK; `refusal` of the command called ``name`` otherwise."""
    if status.kind == "OK":
        return status
    raise refusal(name, status.response_code, clean(status.text))


def ignore(_response: Data | Status) -> None:
    """For commands whose untagged responses do not matter."""


def quoted(text: bytes) -> bytes:
    """A quoted string (RFC 9051 §4.3); raises `ValueError` where only a literal would do."""
    if any(byte in text for byte in b"\r\n\0"):
        raise ValueError("a line break or NUL cannot be quoted")
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
