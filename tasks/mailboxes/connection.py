"""Testing a connection step by step, each with its time and, on failure, what to do about it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from config.errors import MailwrightError, TransientError
from tasks.mailboxes.plan import Door
from tasks.mailboxes.values import Protocol
from tasks.wire.imap import ImapError, ImapSession
from tasks.wire.imap import LoginRefused as ImapLoginRefused
from tasks.wire.net import Budget, NetError, Security, Step
from tasks.wire.sasl import Secret
from tasks.wire.smtp import SessionFailed, SmtpSession

_INBOX: Final = b"INBOX"
_SELECT: Final = "select"
_REFUSED: Final = (
    "Check login and password. Some providers want an app password, "
    "or {protocol} switched on in their settings."
)


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step. ``said`` is what happened in words, ``remedy`` what to do; both empty where it went well."""

    step: str
    ok: bool
    milliseconds: float
    said: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The test of one protocol. ``refused`` means that the server refused these credentials."""

    protocol: Protocol
    server: str
    security: str
    steps: tuple[StepResult, ...]
    refused: bool = False

    @property
    def ok(self) -> bool:
        """Whether every step went well."""
        return all(step.ok for step in self.steps)

    @property
    def failure(self) -> StepResult | None:
        """The step that failed."""
        return next((step for step in self.steps if not step.ok), None)


Heard = Callable[[Door, StepResult], None]
"""Told of each step as it ends."""


class TestFailed(TransientError):
    """The connection test failed and nothing was stored."""

    __test__ = False  # no test of pytest's
    code = "connection_test_failed"

    def __init__(self, message: str, reports: tuple[Report, ...]) -> None:
        super().__init__(message)
        self.reports = reports


def unheard(_door: Door, _result: StepResult) -> None:
    """Tell nobody."""


def examine(
    door: Door,
    login: str,
    secret: Secret,
    *,
    imap_timeout: float,
    connect_timeout: float,
    heard: Heard = unheard,
) -> Report:
    """Connect, secure, log in and (IMAP) open INBOX, then hang up. Time-outs are in seconds.

    What a server does never raises: the report says. For use outside any transaction.
    """
    steps: list[StepResult] = []
    refused = False
    last = time.monotonic()

    def done(step: str, seconds: float) -> None:
        nonlocal last
        last = time.monotonic()
        steps.append(StepResult(step, True, round(seconds * 1000, 1)))
        heard(door, steps[-1])

    try:
        match door.protocol:
            case Protocol.IMAP:
                _imap(door, login, secret, imap_timeout, connect_timeout, done)
            case Protocol.SMTP:
                SmtpSession.open(
                    door.endpoint,
                    login,
                    secret,
                    Budget(door.timeout),
                    connect_timeout=connect_timeout,
                    steps=done,
                ).close()
    except (NetError, ImapError, SessionFailed) as error:
        refused = isinstance(error, ImapLoginRefused) or (
            isinstance(error, SessionFailed) and error.login_refused
        )
        waited = round((time.monotonic() - last) * 1000, 1)
        steps.append(
            StepResult(
                _failed_step(door, [step.step for step in steps], error),
                False,
                waited,
                said=_told(error),
                remedy=_refused(door) if refused else error.remedy,
            )
        )
        heard(door, steps[-1])
    endpoint = door.endpoint
    return Report(door.protocol, str(endpoint), endpoint.security.value, tuple(steps), refused)


def _imap(
    door: Door,
    login: str,
    secret: Secret,
    timeout: float,
    connect_timeout: float,
    done: Callable[[str, float], None],
) -> None:
    session = ImapSession.open(
        door.endpoint, login, secret, timeout=timeout, connect_timeout=connect_timeout, steps=done
    )
    try:
        session.select(_INBOX)
    finally:
        session.close()


def _failed_step(door: Door, done: list[str], error: MailwrightError) -> str:
    if isinstance(error, NetError | SessionFailed) and error.step is not Step.DIALOGUE:
        return error.step.value
    return next((step for step in _imap_steps(door) if step not in done), _SELECT)


def _imap_steps(door: Door) -> tuple[str, ...]:
    match door.endpoint.security:
        case Security.TLS:
            return ("resolve", "connect", "tls", "greeting", "login", _SELECT)
        case Security.STARTTLS:
            return ("resolve", "connect", "greeting", "starttls", "login", _SELECT)
        case Security.NONE:
            return ("resolve", "connect", "greeting", "login", _SELECT)


def _told(error: MailwrightError) -> str:
    if isinstance(error, NetError | SessionFailed):
        return error.what.rstrip(".") + "."
    return str(error)


def _refused(door: Door) -> str:
    if door.oauth:
        return (
            "Check that consent was given with this very account, that the scopes allow "
            f"{door.protocol.upper()}, and that the service has it switched on."
        )
    return _REFUSED.format(protocol=door.protocol.upper())
