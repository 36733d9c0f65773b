"""Reading a server's replies, and judging them in one place."""

import re
from typing import Final

from tasks.wire.net import AnySocket, NetError
from tasks.wire.smtp.values import Outcome, Reply, Stage

LONGEST_LINE: Final = 4096
"""Bytes of one reply line; RFC 5321 §4.5.3.1.5 says 512, some servers exceed it."""
MOST_LINES: Final = 200
"""Lines of one reply."""
LONGEST_TEXT: Final = 1000
"""Characters of a reply that are kept."""

DAY: Final = 86_400
"""Seconds."""


class Malformed(Exception):
    """Bytes that are no SMTP reply; the dialogue is lost."""


_CODE: Final = re.compile(rb"[2-5][0-9]{2}")


class ReplyReader:
    """Replies off a socket, buffered, with a bound on each line and on their number."""

    __slots__ = ("_buffer", "_ended", "sock")

    def __init__(self, sock: AnySocket) -> None:
        self.sock = sock
        self._buffer = bytearray()
        self._ended = False

    @property
    def buffered(self) -> bool:
        """Whether bytes were received that no reply has used."""
        return bool(self._buffer)

    def spoke(self) -> bool:
        """Whether the server said something, or hung up, without being asked. Does not wait."""
        if not self._buffer and not self._ended:
            try:
                received = self.sock.recv_now(LONGEST_LINE)
            except NetError:
                received = b""
            if received is not None:
                self._buffer += received
                self._ended = not received
        return self._ended or bool(self._buffer)

    def read(self) -> tuple[int, list[bytes]]:
        """The next reply: its code and its lines without code.

        Raises `Malformed`, `EOFError` at the end of the stream, and what the socket raises.
        """
        lines: list[bytes] = []
        first: bytes | None = None
        while len(lines) < MOST_LINES:
            line = self._line()
            code, mark = line[:3], line[3:4]
            if not _CODE.fullmatch(code) or mark not in (b"", b" ", b"-"):
                raise Malformed("not an SMTP reply")
            if first not in (None, code):
                raise Malformed("lines of one reply have different codes")
            first = code
            lines.append(line[4:])
            if mark != b"-":
                return int(code), lines
        raise Malformed(f"a reply of more than {MOST_LINES} lines")

    def _line(self) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > LONGEST_LINE:
                break
            received = b"" if self._ended else self.sock.recv(LONGEST_LINE)
            if not received:
                self._ended = True
                raise EOFError
            self._buffer += received
        if end < 0 or end > LONGEST_LINE:
            raise Malformed(f"a reply line of more than {LONGEST_LINE} bytes")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.rstrip(b"\r")


_ENHANCED: Final = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def reply_of(code: int, lines: list[bytes]) -> Reply:
    """Make a `Reply` fit to be shown and stored; bytes that are no UTF-8 become U+FFFD."""
    enhanced: str | None = None
    words = []
    for line in lines:
        text = line.decode("utf-8", "replace")
        if not text.isprintable():
            text = " ".join(_CONTROL.sub(" ", text).split())
        text = text.strip()
        if match := _ENHANCED.match(text):
            enhanced = enhanced or match[1]
            text = text[match.end() :]
        if text:
            words.append(text)
    return Reply(code, enhanced, " ".join(words)[:LONGEST_TEXT])


_DAILY: Final = re.compile(
    r"\bdaily (?:\w+ ){0,4}(?:limit|quota)|\b(?:limit|quota) (?:\w+ ){0,4}(?:per|a|for the) day\b|"
    r"\bsending limits?\b|\blimit for sending\b",
    re.IGNORECASE,
)
_TOO_MANY: Final = re.compile(r"too many recipients", re.IGNORECASE)


def classify(reply: Reply | None, stage: Stage) -> Outcome:
    """Judge a server's word, or its silence, on one recipient or message.

    Only a real reply decides (RFC 5321 §4.2.1); silence after the dot leaves doubt (§4.5.3.2.6), before
    it none. ``SENT`` at a stage before the dot means *go on*. 5yz is permanent, except: 503 is our own
    mistake; 552 for too many recipients means the rest go later (§4.5.3.1.10); Gmail's daily limits mean
    *tomorrow*. 421 and 454 in AUTH are the server's bad day (RFC 4954 §4), as any 4yz.
    """
    if reply is None:
        return Outcome.UNCERTAIN if stage is Stage.DOT else Outcome.DEFERRED
    match reply.code // 100:
        case 2:
            return Outcome.DEFERRED if stage is Stage.DATA else Outcome.SENT
        case 3:
            return _intermediate(stage)
        case 5:
            return Outcome.DEFERRED if _passes(reply, stage) else Outcome.FAILED
        case _:
            return Outcome.DEFERRED


def _intermediate(stage: Stage) -> Outcome:
    """3yz asks for more, which only DATA and AUTH expect; after the dot it decides nothing."""
    if stage in (Stage.DATA, Stage.AUTH):
        return Outcome.SENT
    return Outcome.UNCERTAIN if stage is Stage.DOT else Outcome.DEFERRED


def _passes(reply: Reply, stage: Stage) -> bool:
    """Whether a 5yz comes back later all the same."""
    if reply.code == 503:
        return True
    if reply.code == 552 and stage is Stage.RCPT:
        return reply.enhanced == "5.5.3" or _TOO_MANY.search(reply.text) is not None
    return _daily_limit(reply)


def _daily_limit(reply: Reply) -> bool:
    """Gmail's 550 5.4.5, and 5.7.1 with words about a limit (support.google.com/a/answer/3726730)."""
    if reply.code != 550:
        return False
    if reply.enhanced == "5.4.5":
        return True
    return reply.enhanced == "5.7.1" and _DAILY.search(reply.text) is not None


def login_refused(reply: Reply | None, stage: Stage) -> bool:
    """Whether login and password themselves were refused (RFC 4954 §4 and §6): 535, 534."""
    return stage is Stage.AUTH and reply is not None and reply.code in (534, 535)


_HINT: Final = re.compile(
    r"\b(?:in|after|for|wait)\s+(\d{1,5})\s*(s|sec|secs|seconds?|m|min|mins|minutes?)\b", re.IGNORECASE
)


def retry_after(reply: Reply | None, stage: Stage) -> float | None:
    """Seconds until another try makes sense, where the reply tells; ``None``: the usual back-off.

    A daily limit means tomorrow; "try again in 300 seconds" is taken at its word, up to a day.
    """
    if reply is None or classify(reply, stage) is not Outcome.DEFERRED:
        return None
    if _daily_limit(reply):
        return DAY
    if hint := _HINT.search(reply.text):
        seconds = int(hint[1]) * (60 if hint[2].lower().startswith("m") else 1)
        return float(min(seconds, DAY))
    return None
