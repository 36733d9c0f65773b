"""IMAPClient over our channel, behind a typed face.

IMAPClient and imaplib greet, ask CAPABILITY, append, search and log out. Their overridable methods
are overridden here so that they read from the channel's buffer, keep no log (imaplib remembers the
last commands, passwords too) and raise nothing of their own beyond this file.
"""

import imaplib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from imapclient import IMAPClient
from imapclient.exceptions import InvalidCriteriaError
from imapclient.imap4 import IMAP4WithTimeout

from tasks.wire.imap.channel import Channel, quoted
from tasks.wire.imap.errors import Disconnected, ImapError, ProtocolError, busy, clean, farewell, refusal

REFUSED: Final = re.compile(r"(?:failed: |command error: (?:NO|BAD) \[b['\"])(.*?)(?:['\"]\])?\Z", re.DOTALL)
CODE: Final = re.compile(r"\[([^\]\s]+)")
NONSENSE: Final = ("unexpected", "unterminated", "not IMAP4", "got more than", "no CAPABILITY", "Literal")


class _Connection(IMAP4WithTimeout):
    """imaplib's connection with our channel for a socket."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._greeted = False
        self._in_response = False
        super().__init__(channel.endpoint.host, channel.endpoint.port, None)

    def open(self, host: str = "", port: int = 143, timeout: float | None = None) -> None:
        """Take over the channel, which is connected."""
        self.host = host
        self.port = port
        self.sock = self._channel.sock

    def read(self, size: int) -> bytes:
        """Bytes of a literal."""
        self._in_response = True
        return self._channel.read_exactly(size)

    def readline(self) -> bytes:
        """A line. Junk between responses, which imaplib would stop at, is passed over."""
        line = self._channel.read_line(1 << 20)
        while self._greeted and not self._in_response and self._is_junk(line):
            self._channel.count_junk()
            line = self._channel.read_line(1 << 20)
        self._greeted = True
        self._in_response = False
        return line

    def _is_junk(self, line: bytes) -> bool:
        if line.startswith(b"* "):
            return line[2] > 126
        tag: Any = self.tagpre
        return not line.startswith((b"+", tag))

    def send(self, data: Any) -> None:
        """Bytes out."""
        self._channel.write(bytes(data))

    def shutdown(self) -> None:
        """Hang up."""
        self._channel.cut()

    def _log(self, line: object) -> None:
        """Remember nothing."""

    def _mesg(self, text: object, secs: object = None) -> None:
        """Print nothing."""


class _Client(IMAPClient):
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._seen: tuple[bytes, ...] = ()
        super().__init__(channel.endpoint.host, channel.endpoint.port, ssl=False)
        self._imap.debug = 0
        del self._imap._mesg

    def _create_IMAP4(self) -> _Connection:
        return _Connection(self._channel)

    def _set_read_timeout(self) -> None:
        pass

    def capabilities(self) -> tuple[bytes, ...]:
        return self._seen or tuple(word.encode("ascii") for word in self._imap.capabilities)

    def _normalise_folder(self, folder_name: bytes) -> bytes:
        return quoted(folder_name)


class Client:
    """The commands left to IMAPClient. Made by reading the greeting and asking for capabilities."""

    def __init__(self, channel: Channel) -> None:
        with _translated("the greeting"):
            self._client: Any = _Client(channel)
        self.preauthenticated = bool(self._client._imap.state == "AUTH")
        self.capabilities = frozenset(str(word).upper() for word in self._client._imap.capabilities)

    def entered(self, state: str, capabilities: frozenset[str] | None = None) -> None:
        """Tell imaplib what our own commands changed: ``AUTH`` or ``SELECTED``, and what is offered now."""
        self._client._imap.state = state
        self._client._imap.is_readonly = True  # so that no [READ-ONLY] is an error to it
        if capabilities is not None:
            self.capabilities = capabilities
            self._client._seen = tuple(word.encode("ascii", "replace") for word in sorted(capabilities))

    def append(self, folder: bytes, content: bytes, flags: Sequence[str], at: datetime | None) -> bytes:
        """APPEND (RFC 9051 §6.3.12) and the text of its OK."""
        with self._fresh("APPEND"):
            return bytes(self._client.append(folder, content, tuple(flags), at))

    def search_header(self, name: str, value: str) -> list[int]:
        """UID SEARCH HEADER in the selected folder."""
        charset = None if value.isascii() else "UTF-8"
        with self._fresh("SEARCH"):
            return sorted(int(uid) for uid in self._client.search(["HEADER", name, value], charset))

    def logout(self) -> None:
        """LOGOUT; the server answers BYE."""
        with self._fresh("LOGOUT"):
            self._client.logout()

    @contextmanager
    def _fresh(self, command: str) -> Iterator[None]:
        self._client._imap.untagged_responses.clear()
        with _translated(command):
            yield
        self._client._imap.untagged_responses.clear()


@contextmanager
def _translated(command: str) -> Iterator[None]:
    """Turn what imaplib and IMAPClient raise into ours."""
    try:
        yield
    except ImapError:
        raise
    except imaplib.IMAP4.abort as error:
        raise _aborted(command, str(error)) from None
    except imaplib.IMAP4.error as error:
        raise _refused(command, error) from None
    except (ValueError, AssertionError, IndexError, KeyError, UnicodeError, AttributeError) as error:
        raise ProtocolError(f"The server's answer to {command} is not IMAP.") from error


def _aborted(command: str, text: str) -> ImapError:
    if any(word in text for word in NONSENSE):
        return ProtocolError(f"The server's answer to {command} is not IMAP.")
    words = clean(text.rpartition(" => ")[2])
    code = CODE.match(words)
    return farewell(code[1].upper() if code else "", words)


def _refused(command: str, error: imaplib.IMAP4.error) -> ImapError:
    if command == "the greeting":
        return _no_greeting(error.args[0] if error.args else b"")
    text = str(error)
    if isinstance(error, InvalidCriteriaError):  # IMAPClient's lesson about SEARCH follows the server's words
        text = f"SEARCH command error: BAD [{text.partition(chr(10))[0]}]"
    found = REFUSED.search(text)
    if found is None:
        return Disconnected(f"{command} could not be done on this connection.")
    words = clean(found[1])
    code = CODE.match(words)
    return refusal(command, code[1].upper() if code else "", words)


def _no_greeting(told: object) -> ImapError:
    """Judge what came instead of a greeting; imaplib gives the line as it was."""
    words = clean(told if isinstance(told, bytes) else str(told)).removeprefix("* ")
    if words.upper().startswith("BYE"):
        words = words[3:].strip()
        code = CODE.match(words)
        return farewell(code[1].upper() if code else "", words)
    if busy("", words):
        return farewell("", words)
    return ProtocolError("What answers there does not greet like an IMAP server.")
