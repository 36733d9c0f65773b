"""What an SMTP dialogue is about and what became of it."""

from dataclasses import dataclass
from enum import StrEnum

from config.errors import TransientError
from tasks.wire.net import Step


class Stage(StrEnum):
    """Where in the dialogue a reply was given, or missing. ``DOT`` is after the final dot."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"
    RSET = "rset"


class Outcome(StrEnum):
    """What is known of one recipient or message after an attempt."""

    SENT = "sent"
    DEFERRED = "deferred"
    FAILED = "failed"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's reply (RFC 5321 §4.2).

    ``enhanced`` is its RFC 3463 status such as ``5.1.1``; ``text`` has no control characters and at
    most 1,000 characters, lines joined by spaces, the enhanced code left out.
    """

    code: int
    enhanced: str | None
    text: str

    def __str__(self) -> str:
        """As a person knows it: ``550 5.1.1 No such user``."""
        return " ".join(part for part in (str(self.code), self.enhanced, self.text) if part)


@dataclass(frozen=True, slots=True)
class Features:
    """What EHLO offers. ``size`` is the greatest message in bytes; ``None``: not told, or no limit."""

    size: int | None = None
    pipelining: bool = False
    eight_bit_mime: bool = False
    smtputf8: bool = False
    dsn: bool = False


@dataclass(frozen=True, slots=True)
class Exchange:
    """One step of a dialogue: the code of its reply, None where there was none, and the milliseconds since
    the step before. ``times``: so many in a row, with the same code; the milliseconds are of all."""

    step: str
    code: int | None
    ms: int
    times: int = 1


class Notify(StrEnum):
    """Of what a recipient's server shall report (RFC 3461 §4.1)."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class Reports:
    """The delivery reports that are asked for, of every recipient. ``envelope_id`` comes back in them
    (RFC 3461 §4.4; at most 100 printable ASCII characters before its xtext); ``whole``: with the message,
    not with its header alone. No ``notify`` asks that none be made."""

    notify: frozenset[Notify] = frozenset({Notify.FAILURE})
    envelope_id: str | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who sends to whom: bare addresses. ``mail_from`` may be empty (RFC 5321 §4.5.5).

    ``smtputf8``: an address or a header holds raw UTF-8 (RFC 6531). ``eight_bit``: the content has
    bytes above 127 (RFC 6152). ``reports``: said where the server offers DSN, else left out.
    """

    mail_from: str
    recipients: tuple[str, ...]
    smtputf8: bool = False
    eight_bit: bool = False
    reports: Reports | None = None


@dataclass(frozen=True, slots=True)
class RecipientResult:
    """What became of one recipient. ``reply`` is the one that decided, if any came."""

    address: str
    outcome: Outcome
    reply: Reply | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one message.

    ``stage`` is the furthest one reached; ``reply`` the deciding one; ``waited`` the seconds of waiting
    counted by the budget. Recipients refused at RCPT keep their own outcome, the accepted ones share
    the message's. ``reason`` says in words what decided where no reply did. ``recipients`` is in the
    envelope's order. ``dialogue``: each step, from the connection's opening on where this was its first
    message.
    """

    outcome: Outcome
    stage: Stage
    reply: Reply | None
    recipients: tuple[RecipientResult, ...]
    waited: float
    reason: str = ""
    dialogue: tuple[Exchange, ...] = ()


class SessionFailed(TransientError):
    """No session came about, so nothing was sent.

    ``login_refused``: the server did not accept login and password. ``permanent``: trying again
    unchanged will not help. ``step`` and ``remedy`` are for people.
    """

    code = "smtp_session"

    def __init__(
        self,
        what: str,
        *,
        stage: Stage,
        step: Step,
        remedy: str,
        reply: Reply | None = None,
        login_refused: bool = False,
        permanent: bool = False,
    ) -> None:
        super().__init__(f"{what}. {remedy}")
        self.what = what
        self.stage = stage
        self.step = step
        self.remedy = remedy
        self.reply = reply
        self.login_refused = login_refused
        self.permanent = permanent
