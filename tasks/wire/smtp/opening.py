"""From a port to a session that may send: greeting, EHLO, STARTTLS, AUTH.

smtplib speaks; the socket and the reply reader under it are ours, so that time and size are bounded
and nothing that lay between STARTTLS and the handshake is lost from sight.
"""

import smtplib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tasks.wire.net import (
    AnySocket,
    Budget,
    Endpoint,
    Injected,
    NetError,
    PatientSocket,
    Security,
    Step,
    TimedOut,
    connect,
    find,
    start_tls,
    wrap,
)
from tasks.wire.net.tls import injected
from tasks.wire.sasl import Secret
from tasks.wire.smtp.login import AuthFailed, authenticate
from tasks.wire.smtp.replies import Malformed, ReplyReader, classify, login_refused, reply_of
from tasks.wire.smtp.values import Exchange, Features, Outcome, Reply, SessionFailed, Stage

Steps = Callable[[str, float], None]
"""Told the name of each finished step and its seconds."""

_STAGES: Final = {
    Step.GREETING: Stage.GREETING,
    Step.EHLO: Stage.EHLO,
    Step.STARTTLS: Stage.STARTTLS,
    Step.AUTH: Stage.AUTH,
}


class Speaker(smtplib.SMTP):
    """smtplib's commands over a patient socket and a bounded `ReplyReader`. ``code``: of the last reply."""

    reader: ReplyReader
    code: int | None = None
    ehlo_msg = "EHLO"

    def __init__(self, sock: AnySocket, local_hostname: str | None) -> None:
        super().__init__(local_hostname=local_hostname or _literal(sock))
        self.take(sock)

    def take(self, sock: AnySocket) -> None:
        """Go on over ``sock``, all that was learned forgotten (RFC 3207 §4.2)."""
        self.sock = sock
        self.reader = ReplyReader(sock)
        self.helo_resp = None
        self.ehlo_resp = None
        self.esmtp_features = {}
        self.does_esmtp = False

    def getreply(self) -> tuple[int, bytes]:
        """The next reply as smtplib wants it; raises as `ReplyReader.read`."""
        self.code, lines = self.reader.read()
        return self.code, b"\n".join(lines)


def _literal(sock: AnySocket) -> str:
    """Our address as EHLO's argument (RFC 5321 §4.1.3); a look-up of our own name could hang."""
    address = str(sock.getsockname()[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


class Opening:
    """The steps to one session; `run` walks them, ``dialogue`` has them."""

    def __init__(
        self, endpoint: Endpoint, budget: Budget, connect_timeout: float, steps: Steps | None
    ) -> None:
        self._endpoint = endpoint
        self._budget = budget
        self._connect_timeout = connect_timeout
        self._steps = steps
        self._step = Step.RESOLVE
        self._speaker: Speaker | None = None
        self.dialogue: list[Exchange] = []

    def run(self, login: str | None, secret: Secret | None, local_hostname: str | None) -> Speaker:
        """Connect and log in. Raises `SessionFailed`; the connection is then closed."""
        speaker: Speaker | None = None
        sock: AnySocket | None = None
        try:
            sock = self._dial()
            speaker = self._speaker = Speaker(sock, local_hostname)
            with self._at(Step.GREETING):
                self._expect(speaker.getreply(), "refuses to talk")
            self._ehlo(speaker)
            if self._endpoint.security is Security.STARTTLS:
                self._starttls(speaker)
                self._ehlo(speaker)
            if login is not None:
                with self._at(Step.AUTH):
                    self._login(speaker, login, secret or "")
        except BaseException as error:
            if speaker is not None and speaker.sock is not None:
                speaker.sock.close()
            elif sock is not None:
                sock.close()
            if isinstance(error, NetError | EOFError | Malformed):
                raise self._translated(error) from error
            raise
        return speaker

    @contextmanager
    def _at(self, step: Step) -> Iterator[None]:
        self._step = step
        begun = time.monotonic()
        yield
        took = time.monotonic() - begun
        code = self._speaker.code if self._speaker is not None else None  # nobody spoke before the greeting
        self.dialogue.append(Exchange(step.value, code, round(1000 * took)))
        if self._steps is not None:
            self._steps(step.value, took)

    def _dial(self) -> AnySocket:
        with self._at(Step.RESOLVE):
            addresses = find(self._endpoint)
        with self._at(Step.CONNECT):
            plain = connect(self._endpoint, addresses, self._budget, self._connect_timeout)
        if self._endpoint.security is not Security.TLS:
            plain.step = Step.GREETING
            return plain
        with self._at(Step.TLS):
            secured = wrap(plain, self._endpoint, self._budget, Step.TLS)
        secured.step = Step.GREETING
        return secured

    def _ehlo(self, speaker: Speaker) -> None:
        with self._at(Step.EHLO):
            speaker.reader.sock.step = Step.EHLO
            answer = speaker.ehlo()
            if answer[0] in (500, 502, 504):  # from before 1995, or a stub
                answer = speaker.helo()
            self._expect(answer, "refuses EHLO")

    def _starttls(self, speaker: Speaker) -> None:
        with self._at(Step.STARTTLS):
            if not speaker.has_extn("starttls"):
                raise SessionFailed(
                    f"{self._endpoint} does not offer STARTTLS",
                    stage=Stage.STARTTLS,
                    step=Step.STARTTLS,
                    remedy="Choose SSL/TLS and its TLS port, or another network: "
                    "something on the way may be hiding the offer.",
                    permanent=True,
                )
            plain = speaker.reader.sock
            plain.step = Step.STARTTLS
            self._expect(speaker.docmd("STARTTLS"), "refuses STARTTLS")
            if speaker.reader.buffered:
                raise injected(self._endpoint)
            assert isinstance(plain, PatientSocket)
            speaker.take(start_tls(plain, self._endpoint, self._budget))

    def _login(self, speaker: Speaker, login: str, secret: Secret) -> None:
        speaker.reader.sock.step = Step.AUTH
        try:
            authenticate(speaker, login, secret, self._endpoint.host, self._endpoint.port)
        except AuthFailed as failure:
            refused = login_refused(failure.reply, Stage.AUTH)
            said = f": {failure.reply}" if failure.reply else ""
            raise SessionFailed(
                f"{self._endpoint} {failure.what}{said}",
                stage=Stage.AUTH,
                step=Step.AUTH,
                remedy=failure.remedy,
                reply=failure.reply,
                login_refused=refused,
                permanent=failure.reply is None or classify(failure.reply, Stage.AUTH) is Outcome.FAILED,
            ) from None

    def _expect(self, answer: tuple[int, bytes], refusal: str) -> None:
        reply = reply_of(answer[0], answer[1].split(b"\n"))
        stage = _STAGES[self._step]
        if reply.code // 100 == 2:
            return
        permanent = classify(reply, stage) is Outcome.FAILED
        raise SessionFailed(
            f"{self._endpoint} {refusal}: {reply}",
            stage=stage,
            step=self._step,
            remedy="Its words say why; its administrator can tell more." if permanent else "Try again later.",
            reply=reply,
            permanent=permanent,
        )

    def _translated(self, error: NetError | EOFError | Malformed) -> SessionFailed:
        stage = _STAGES.get(self._step, Stage.CONNECT)
        if isinstance(error, NetError):
            return SessionFailed(
                error.what,
                stage=stage,
                step=self._step if isinstance(error, TimedOut | Injected) else error.step,
                remedy=error.remedy,
            )
        said = "hung up" if isinstance(error, EOFError) else f"sent what is no SMTP ({error})"
        return SessionFailed(
            f"{self._endpoint} {said} at step {self._step}",
            stage=stage,
            step=self._step,
            remedy="Check that host, port and security fit together, or try again later.",
        )


def features_of(speaker: Speaker) -> Features:
    """What EHLO offered."""
    offered = speaker.esmtp_features
    size = offered.get("size", "").strip()
    limit = int(size) if size.isascii() and size.isdigit() and len(size) < 16 else 0
    return Features(
        size=limit or None,
        pipelining="pipelining" in offered,
        eight_bit_mime="8bitmime" in offered,
        smtputf8="smtputf8" in offered,
        dsn="dsn" in offered,
    )


def reply_from(reader: ReplyReader) -> Reply:
    """The next reply; raises as `ReplyReader.read`."""
    return reply_of(*reader.read())
