"""IMAP responses out of bytes, without a socket (RFC 9051 §2.2.2, §4.3, §9).

::

    bytes ──feed──> buffer ──next_event──> Data | Status | Continuation | Junk | None (more bytes, please)

    line ──ends in {n} or ~{n}──> literal ──n bytes──> line ──…──> Data

Lines are only looked at when they are whole, literals are passed over without being looked at, so
cutting the same bytes differently gives the same events. Everything held is bounded: a line, the
number of literals of a response, and their bytes: what goes beyond ``max_literal`` is let pass, unheld,
and what is `LARGE` lies in a file, or is let pass too where that has no room.
"""

import re
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from tasks.wire.bulk import LARGE, Raw, Spool
from tasks.wire.imap.errors import ProtocolError

MAX_LINE: Final = 1 << 20
"""Bytes of one response outside its literals."""
MAX_LITERALS: Final = 100
"""Literals of one response."""
MAX_ANNOUNCED: Final = 1 << 32
"""Bytes; a literal announced as longer is nonsense (RFC 9051 §9: number is 32 bits)."""
DEFAULT_MAX_LITERAL: Final = 1 << 20
"""Bytes held of the literals of one response unless told otherwise."""

MARK: Final = re.compile(rb"~?\{([0-9]{1,19})\+?\}\Z")
STATUS: Final = re.compile(rb"(\S+) (OK|NO|BAD|BYE|PREAUTH)(?: (.*))?\Z", re.IGNORECASE | re.DOTALL)
CODE: Final = re.compile(rb"\[([^\]\s]+)(?: ([^\]]*))?\]\s?(.*)\Z", re.DOTALL)
TAG: Final = re.compile(rb"[\x21-\x7e]+\Z")


@dataclass(frozen=True, slots=True)
class Literal:
    """A literal of ``size`` bytes; ``data`` is None where it was too much to hold, or where it could not be
    held, and then ``lost`` says why."""

    data: Raw | None
    size: int
    lost: str | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """An untagged response with data, without ``* `` and the literals' marks.

    Text and literals by turns, text first and last (both may be empty).
    """

    parts: tuple[bytes | Literal, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """OK, NO, BAD, BYE or PREAUTH, untagged where ``tag`` is ``*``.

    ``[HIGHESTMODSEQ 7]`` needs no text after it (Gmail sends none).
    """

    tag: bytes
    kind: str
    response_code: str
    argument: bytes
    text: bytes


@dataclass(frozen=True, slots=True)
class Continuation:
    """``+``: the server waits for the rest."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Junk:
    """A line that is no response at all."""

    line: bytes


Event = Data | Status | Continuation | Junk


class Scanner:
    """Bytes in, events out. ``max_literal`` may be set at any time and holds from the next literal on."""

    def __init__(self, max_literal: int = DEFAULT_MAX_LITERAL) -> None:
        self.max_literal = max_literal
        self._buffer = bytearray()
        self._at = 0
        self._searched = 0
        self._parts: list[bytes | Literal] = []
        self._text = 0
        self._held = 0
        self._size = -1
        self._left = 0
        self._sink: BytesIO | Spool | None = None
        self._lost: str | None = None

    @property
    def buffered(self) -> int:
        """Bytes fed that no event has used yet."""
        return len(self._buffer) - self._at

    @property
    def between(self) -> bool:
        """Whether the next byte begins a response."""
        return not self._parts and self._size < 0

    def feed(self, data: bytes) -> None:
        """Add what came from the server."""
        if self._at:
            del self._buffer[: self._at]
            self._searched = max(0, self._searched - self._at)
            self._at = 0
        self._buffer += data

    def next_event(self) -> Event | None:
        """The next response, or None until more is fed. Raises `ProtocolError` on what is unbearable."""
        while True:
            if self._size >= 0 and not self._finish_literal():
                return None
            line = self.take_line(MAX_LINE - self._text)
            if line is None:
                return None
            if not self._parts:
                if not line.startswith(b"* "):
                    return _other(line)
                status = STATUS.match(line)
                if status is not None:
                    return _status(status)
                line = line[2:]
            mark = MARK.search(line) if line.endswith(b"}") else None
            if mark is None:
                self._parts.append(line)
                event = Data(tuple(self._parts))
                self._parts.clear()
                self._text = self._held = 0
                return event
            self._parts.append(line[: mark.start()])
            self._text += len(line)
            self._begin_literal(int(mark[1]))

    def take_line(self, longest: int = MAX_LINE) -> bytes | None:
        """The next line without its end, CRLF or LF, or None until it is whole."""
        end = self._buffer.find(b"\n", max(self._at, self._searched))
        if end < 0:
            self._searched = len(self._buffer)
        if (end if end >= 0 else len(self._buffer)) - self._at > longest:
            raise ProtocolError(f"The server sent a line of more than {MAX_LINE} bytes.")
        if end < 0:
            return None
        stop = end - 1 if end > self._at and self._buffer[end - 1] == 13 else end
        line = bytes(self._buffer[self._at : stop])
        self._at = self._searched = end + 1
        return line

    def take(self, count: int) -> bytes | None:
        """Exactly ``count`` bytes, or None until they are there."""
        if self.buffered < count:
            return None
        return self._take(count)

    def _take(self, count: int) -> bytes:
        with memoryview(self._buffer) as view:
            data = bytes(view[self._at : self._at + count])
        self._at += count
        return data

    def _begin_literal(self, size: int) -> None:
        if size >= MAX_ANNOUNCED:
            raise ProtocolError("The server announced a literal of more than 4 GiB.")
        if len(self._parts) > 2 * MAX_LITERALS:
            raise ProtocolError(f"The server sent a response of more than {MAX_LITERALS} literals.")
        self._size = self._left = size
        if self._held + size <= self.max_literal:
            self._held += size
            self._sink = BytesIO() if size < LARGE else self._spool()
        else:
            self._sink = None

    def _finish_literal(self) -> bool:
        if self._left == self._size and isinstance(self._sink, BytesIO) and self.buffered >= self._size:
            self._parts.append(Literal(self._take(self._size), self._size))
        else:
            count = min(self._left, self.buffered)
            if self._sink is not None:
                self._keep(self._sink, self._at + count)
            self._at += count
            self._left -= count
            if self._left:
                return False
            self._parts.append(self._held_literal())
        self._size = -1
        self._sink = self._lost = None
        return True

    def _spool(self) -> Spool | None:
        try:
            return Spool()
        except OSError as error:
            self._lost = str(error)
            return None

    def _keep(self, sink: BytesIO | Spool, stop: int) -> None:
        try:
            with memoryview(self._buffer) as view, view[self._at : stop] as piece:
                sink.write(piece)
        except OSError as error:
            self._sink, self._lost = None, str(error)

    def _held_literal(self) -> Literal:
        match self._sink:
            case None:
                return Literal(None, self._size, self._lost)
            case BytesIO():  # which shares its bytes with what it gives
                return Literal(self._sink.getvalue(), self._size)
            case Spool():
                try:
                    return Literal(self._sink.finish(), self._size)
                except OSError as error:
                    return Literal(None, self._size, str(error))


def _status(match: re.Match[bytes]) -> Status:
    tag, kind, rest = match[1], match[2].decode("ascii").upper(), match[3] or b""
    code = CODE.match(rest) if rest.startswith(b"[") else None
    if code is None:
        return Status(tag, kind, "", b"", rest)
    return Status(tag, kind, code[1].decode("ascii", "replace").upper(), code[2] or b"", code[3])


def _other(line: bytes) -> Event:
    if line.startswith(b"+"):
        return Continuation(line[1:].strip())
    status = STATUS.match(line)
    if status is not None and TAG.match(status[1]) and status[2].upper() in (b"OK", b"NO", b"BAD"):
        return _status(status)
    return Junk(line)
