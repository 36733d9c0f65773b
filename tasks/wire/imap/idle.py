"""A session that only waits for news (RFC 2177), after its login: bytes in, bytes out, no I/O.

::

              begin                +                    poke                tagged OK
    new ────────────────> ASKED ──────> IDLING ────────────────> ENDING ──────────────> ASKED …
     │                      └──NO, BAD──┐ (the server offered what it cannot)
     │ no IDLE offered                  ▼      poke               tagged reply
     └──────────────────────────────> RESTING ────────> PROBED ────────────────────> RESTING

EXISTS, EXPUNGE, FETCH and VANISHED are news at any moment. What a server says to show that it is there
(``* OK Still here``) is none.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from tasks.wire import net
from tasks.wire.imap.errors import Disconnected, ImapError, ProtocolError, clean, farewell
from tasks.wire.imap.scanner import Continuation, Data, Junk, Scanner, Status
from tasks.wire.imap.session import ImapSession

NEWS: Final = frozenset({b"EXISTS", b"EXPUNGE", b"FETCH"})
MOST_JUNK: Final = 100
"""Lines in one session that are no IMAP."""
LONGEST: Final = 1 << 16
"""Bytes held of a literal; no news has any that matter."""


class State(Enum):
    """How far the dialogue is."""

    ASKED = "asked"
    IDLING = "idling"
    ENDING = "ending"
    RESTING = "resting"
    PROBED = "probed"


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of some bytes: whether the folder ``changed``, what to ``send`` now, and what ``ended``
    the session, if anything did."""

    changed: bool = False
    send: bytes = b""
    ended: ImapError | None = None


class Idle:
    """The dialogue of one session in a selected folder. At rest it holds a few dozen bytes."""

    __slots__ = ("_junk", "_scanner", "_tag", "idles", "state")

    def __init__(self, *, idles: bool) -> None:
        """``idles``: the server offers IDLE; if not, `poke` sends NOOP."""
        self.idles = idles
        self.state = State.RESTING
        self._tag = 0
        self._junk = 0
        self._scanner: Scanner | None = None

    @property
    def waits(self) -> bool:
        """Whether the server owes an answer."""
        return self.state in (State.ASKED, State.ENDING, State.PROBED)

    def begin(self) -> bytes:
        """What to send first."""
        if not self.idles:
            return b""
        self.state = State.ASKED
        return self._command(b"IDLE")

    def poke(self) -> bytes:
        """What to send to renew an IDLE, or to see whether the server is there. Nothing is owed now."""
        match self.state:
            case State.IDLING:
                self.state = State.ENDING
                return b"DONE\r\n"
            case State.RESTING:
                self.state = State.PROBED
                return self._command(b"NOOP")
            case State.ASKED | State.ENDING | State.PROBED:
                raise RuntimeError("the server owes an answer")

    def leave(self) -> bytes:
        """What to send before hanging up without waiting for an answer."""
        ending = b"DONE\r\n" if self.state is State.IDLING else b""
        return ending + self._command(b"LOGOUT")

    def feed(self, data: bytes) -> Heard:
        """Take what came from the server; ``b""`` is the end of the stream."""
        if not data:
            return Heard(ended=Disconnected("The server closed the connection without a word."))
        if self._scanner is None:
            self._scanner = Scanner(max_literal=LONGEST)
        scanner = self._scanner
        changed, send = False, b""
        try:
            scanner.feed(data)
            while (event := scanner.next_event()) is not None:
                match event:
                    case Data(parts):
                        changed = changed or _is_news(parts[0])
                    case Status(kind="BYE"):
                        return Heard(changed, b"", farewell(event.response_code, clean(event.text)))
                    case Status(tag=tag) if tag == self._tagged():
                        send += self._answered(event)
                    case Continuation() if self.state is State.ASKED:
                        self.state = State.IDLING
                    case Junk():
                        self._count_junk()
                    case Status() | Continuation():
                        pass
        except ImapError as error:
            return Heard(changed, b"", error)
        if scanner.between and not scanner.buffered:
            self._scanner = None
        return Heard(changed, send)

    def _answered(self, reply: Status) -> bytes:
        match self.state:
            case State.ENDING if reply.kind == "OK":
                return self.begin()
            case State.ASKED | State.IDLING | State.ENDING:  # refused, or ended by the server: no IDLE here
                self.idles = False
                self.state = State.RESTING
            case State.PROBED | State.RESTING:
                self.state = State.RESTING
        return b""

    def _command(self, command: bytes) -> bytes:
        self._tag += 1
        return self._tagged() + b" " + command + b"\r\n"

    def _tagged(self) -> bytes:
        return b"I%d" % self._tag

    def _count_junk(self) -> None:
        self._junk += 1
        if self._junk > MOST_JUNK:
            raise ProtocolError("The server sends line after line that is not IMAP.")


def hand_over(session: ImapSession) -> tuple[net.AnySocket, bytes]:
    """The socket of a session that is resting in a folder, and what was read from it and not used yet.

    The session is over, the connection is not: it belongs to the caller, who holds nothing else of it.
    """
    channel = session._channel
    channel.alive = False
    return channel.sock, channel.scanner.take(channel.scanner.buffered) or b""


def _is_news(part: object) -> bool:
    if not isinstance(part, bytes):
        return False
    words = part.upper().split(None, 2)
    return words[:1] == [b"VANISHED"] or (len(words) > 1 and words[0].isdigit() and words[1] in NEWS)
