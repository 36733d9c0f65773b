"""What can go wrong with an IMAP server, and the one place where its words are judged.

A message carries the server's words, cleaned of control characters and bounded; never a password.
"""

import re
import unicodedata
from typing import Final

from config.errors import TransientError

LONGEST_WORDS: Final = 300
"""Characters kept of what a server says."""


class ImapError(TransientError):
    """An IMAP server did not do what was asked.

    ``words`` is what it said (cleaned), ``response_code`` the bracketed code without its argument
    (RFC 9051 §7.1), upper case, both "" where there was none. ``remedy`` is one sentence for a person.
    """

    code = "imap"
    remedy = "Try again later; the server's own words say more."
    before_login = False
    """Whether it happened before login and password were sent."""

    def __init__(self, message: str, *, words: str = "", response_code: str = "") -> None:
        super().__init__(message)
        self.words = words
        self.response_code = response_code


class LoginRefused(ImapError):
    """The server refused these credentials, or any login on this connection."""

    code = "imap_login_refused"
    remedy = "Check login and password; some providers want an app password, or IMAP switched on first."


class Disconnected(ImapError):
    """The server closed the connection, with or without BYE. The session is dead."""

    code = "imap_disconnected"
    remedy = "Try again later; if it stays so, check that host and port are those of an IMAP server."


class FolderUnavailable(ImapError):
    """SELECT, EXAMINE, APPEND or STATUS of one folder was refused. The session lives."""

    code = "imap_folder_unavailable"
    remedy = "Check that the folder exists and may be read; other folders go on."


class FolderAbsent(FolderUnavailable):
    """The server says that there is no such folder."""

    code = "imap_folder_absent"


class NoRoom(FolderUnavailable):
    """A message of the folder has no room in the directory for temporary files."""

    code = "no_room"


class ProtocolError(ImapError):
    """The server sent what is not IMAP, or more than is bearable. The session is dead."""

    code = "imap_protocol"
    remedy = "Check that host, port and security are those of an IMAP server."


class CommandRefused(ImapError):
    """NO or BAD to a command. The session lives."""

    code = "imap_refused"
    remedy = "The server's own words say why."


class ServerBusy(ImapError):
    """Throttling, too many connections, a service that is down for now."""

    code = "imap_busy"
    remedy = "Wait; if it comes often, lower the provider's connections per account."


REFUSED_CODES: Final = frozenset(
    {"AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED", "PRIVACYREQUIRED"}
)
"""RFC 5530 §3: only the user can change these."""
BUSY_CODES: Final = frozenset({"UNAVAILABLE", "LIMIT", "INUSE", "SERVERBUG", "THROTTLED"})
"""RFC 5530 §3, and THROTTLED of Gmail: time changes these."""
ABSENT_WORDS: Final = re.compile(
    r"does(n.t| not) exist|non-?exist|no such|unknown (mailbox|folder)", re.IGNORECASE
)
"""How servers without the code NONEXISTENT (RFC 5530 §3) say it; the first is Dovecot's."""
BUSY_WORDS: Final = re.compile(
    r"too many|maximum (number of )?(\w+ )?(connections|sessions)|connection limit|simultaneous|throttl"
    r"|rate limit|try again|try later|temporar|server (is )?busy|unavailable|overload|bandwidth limit",
    re.IGNORECASE,
)


def clean(words: bytes | str) -> str:
    """A server's words as one line fit to print: no control or format characters, bounded."""
    text = words[: 4 * LONGEST_WORDS]
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in text)
    return " ".join(text.split())[:LONGEST_WORDS]


def busy(response_code: str, words: str) -> bool:
    """Whether a refusal or BYE only means *later*."""
    if response_code in REFUSED_CODES:
        return False
    return response_code in BUSY_CODES or BUSY_WORDS.search(words) is not None


def absent(response_code: str, words: str) -> bool:
    """Whether a refusal means that the folder is not there."""
    return response_code == "NONEXISTENT" or (not response_code and ABSENT_WORDS.search(words) is not None)


def said(words: str) -> str:
    """The tail of a message that quotes a server, or nothing."""
    return f': "{words}"' if words else "."


def login_error(kind: str, response_code: str, words: str) -> ImapError:
    """Judge NO or BAD (``kind``) to LOGIN or AUTHENTICATE (RFC 9051 §6.2, RFC 5530)."""
    about = {"words": words, "response_code": response_code}
    if busy(response_code, words):
        return ServerBusy(f"The server takes no login now{said(words)}", **about)
    if kind == "NO" or response_code in REFUSED_CODES:
        return LoginRefused(f"The server refused the login{said(words)}", **about)
    return CommandRefused(f"The server did not understand the login{said(words)}", **about)


def refusal(command: str, response_code: str, words: str) -> ImapError:
    """Judge NO or BAD to any other command."""
    about = {"words": words, "response_code": response_code}
    if busy(response_code, words):
        return ServerBusy(f"The server has no time for {command} now{said(words)}", **about)
    return CommandRefused(f"The server refused {command}{said(words)}", **about)


def farewell(response_code: str, words: str) -> ImapError:
    """Judge BYE (RFC 9051 §7.1.5)."""
    about = {"words": words, "response_code": response_code}
    if busy(response_code, words):
        return ServerBusy(f"The server hung up because it is busy{said(words)}", **about)
    return Disconnected(f"The server said goodbye{said(words)}", **about)
