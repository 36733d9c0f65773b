"""One message over an open session.

MAIL, RCPT…, DATA  (one write where PIPELINING is offered, RFC 2920 §3.1; before_data() comes before it)
  │  no recipient accepted ──> RSET
  ▼  before_data()
DATA ──> 354 ──> content ──> before_dot() ──> "." ──> reply
                    │              │                     └── none: UNCERTAIN
                    │              └── False: cut, DEFERRED
                    └── the server hangs up or stalls: cut, DEFERRED
"""

import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from config.errors import InternalError
from tasks.wire.net import NetError, PatientTlsSocket
from tasks.wire.smtp.content import normalised, stuffed
from tasks.wire.smtp.opening import reply_from
from tasks.wire.smtp.replies import Malformed, ReplyReader, classify
from tasks.wire.smtp.values import (
    Delivery,
    Envelope,
    Exchange,
    Features,
    Outcome,
    RecipientResult,
    Reply,
    Stage,
)

AT_ONCE: Final = 100
"""Commands in one pipelined write: the replies to more might fill both sides' buffers."""

_UNFIT: Final = re.compile(r"""[\x00-\x1f\x7f]|^[^"]*[<> ]""")
"""Control characters anywhere; angle brackets and spaces outside a quoted local part."""
_PLAIN: Final = re.compile(r"[!-*,-<>-~]")
"""What stands for itself in xtext (RFC 3461 §4)."""


def xtext(text: str) -> str:
    """ASCII ``text`` as a parameter's value: ``+`` and two digits for what may not stand there itself
    (RFC 3461 §4). Raises `InternalError` for what no xtext can hold."""
    if not all(" " <= character <= "~" for character in text):
        raise InternalError("an envelope id may hold printable ASCII only")
    return "".join(c if _PLAIN.match(c) else f"+{ord(c):02X}" for c in text)


def _original(address: str) -> str:
    """``ORCPT``, by which a report names the recipient as we did (RFC 3461 §4.2); left out for addresses
    in UTF-8, whose form (RFC 6533) few servers read."""
    return f" ORCPT=rfc822;{xtext(address)}" if address.isascii() else ""


class Lost(Exception):
    """The dialogue cannot go on; the words say why."""


class Transaction:
    """The state of one message on the wire. ``doubt``: the connection must not be used again;
    ``dialogue``: what was said so far."""

    def __init__(self, reader: ReplyReader, features: Features, envelope: Envelope, content: bytes) -> None:
        if not envelope.recipients:
            raise InternalError("a message without recipients reached the wire")
        self._reader = reader
        self._sock = reader.sock
        self._features = features
        self._envelope = envelope
        self._content = normalised(content)
        self._stage = Stage.MAIL
        self._answers: list[Reply | None] = [None] * len(envelope.recipients)
        self._clock = time.monotonic()
        self.doubt = False
        self.dialogue: list[Exchange] = []

    def run(
        self,
        doubt: bool,
        before_data: Callable[[], None] | None,
        before_dot: Callable[[], bool] | None,
    ) -> Delivery:
        """Send it; ``doubt`` is what the session already has."""
        refusal = self._refusal()
        if refusal:
            return self._done(Outcome.FAILED, None, refusal)
        try:
            if doubt:
                raise Lost("the connection was already given up")
            return self._dialogue(before_data, before_dot)
        except (NetError, EOFError, Malformed, Lost) as error:
            self.doubt = True
            self._said(self._stage, None)
            return self._done(classify(None, self._stage), None, _words(error))

    def _refusal(self) -> str:
        """Why this message cannot go to this server at all, or ``""``."""
        needs_utf8 = self._envelope.smtputf8
        for address in (self._envelope.mail_from, *self._envelope.recipients):
            if _UNFIT.search(address):
                return "an address has characters that no address may have"
            needs_utf8 = needs_utf8 or not address.isascii()
        if needs_utf8 and not self._features.smtputf8:
            return "the server does not take addresses or headers in UTF-8 (SMTPUTF8)"
        if self._features.size is not None and len(self._content) > self._features.size:
            return f"the message has {len(self._content)} bytes, the server takes {self._features.size}"
        return ""

    def _dialogue(
        self, before_data: Callable[[], None] | None, before_dot: Callable[[], bool] | None
    ) -> Delivery:
        ahead = self._features.pipelining and len(self._answers) + 2 <= AT_ONCE
        if ahead and before_data is not None:
            before_data()
        refused = self._mail_and_recipients(ahead)
        if refused is not None:
            return self._refused(refused)
        if Outcome.SENT not in (outcomes := self._recipient_outcomes()):
            if ahead:
                self._drain([Stage.DATA])
            outcome = Outcome.FAILED if set(outcomes) == {Outcome.FAILED} else Outcome.DEFERRED
            return self._refused(self._answers[outcomes.index(outcome)], outcome)
        if not ahead and self._reader.buffered:
            raise Lost("the server sent more replies than there were commands")
        if self.doubt:  # 421 among the answers: the server is about to close
            return self._done(Outcome.DEFERRED, self._answers[-1])
        if not ahead and before_data is not None:
            before_data()
        self._stage = Stage.DATA
        if not ahead:
            self._write(b"DATA\r\n")
        reply = self._read()
        if reply.code != 354:
            return self._refused(reply)
        try:
            self._sock.sendall_more(stuffed(self._content))
            self._said("content", None)
        except NetError:
            if self._reader.spoke():  # "552 too much" and the like, before the server hung up
                return self._interrupted()
            raise
        if before_dot is not None and not before_dot():
            raise Lost("the final dot was withheld: too little time was left")
        if self._reader.spoke():
            return self._interrupted()
        self._dot()
        reply = self._read()
        outcome = classify(reply, Stage.DOT)
        if outcome is Outcome.UNCERTAIN or self._reader.buffered:
            self.doubt = True
        return self._done(outcome, reply) if outcome is Outcome.SENT else self._refused(reply)

    def _mail_and_recipients(self, with_data: bool) -> Reply | None:
        """Fill in the answers; returns the reply to MAIL where that refused. ``with_data``: DATA goes along,
        and its reply is not read."""
        commands = [self._mail(), *map(self._recipient, self._envelope.recipients)]
        at_once = AT_ONCE if self._features.pipelining else 1
        for start in range(0, len(commands), at_once):
            group = range(start, min(start + at_once, len(commands)))
            self._write(b"".join([*(commands[at] for at in group), *([b"DATA\r\n"] if with_data else [])]))
            for at in group:
                if at > 0:
                    self._stage = Stage.RCPT
                reply = self._read()
                if at > 0:
                    self._answers[at - 1] = reply
                elif classify(reply, Stage.MAIL) is not Outcome.SENT:
                    self._drain([Stage.RCPT] * (len(group) - 1) + [Stage.DATA] * with_data)
                    return reply
                if self.doubt:
                    self._answers = [answer or reply for answer in self._answers]
                    return None
        return None

    def _mail(self) -> bytes:
        options = ""
        if self._features.size is not None:
            options += f" SIZE={len(self._content)}"
        # Without 8BITMIME the bytes go as they are: the content is fixed, and servers take them.
        if self._envelope.eight_bit and self._features.eight_bit_mime:
            options += " BODY=8BITMIME"
        addresses = (self._envelope.mail_from, *self._envelope.recipients)
        if self._envelope.smtputf8 or not all(address.isascii() for address in addresses):
            options += " SMTPUTF8"
        if self._features.dsn and (reports := self._envelope.reports) is not None:
            options += " RET=FULL" if reports.whole else " RET=HDRS"
            if reports.envelope_id:
                options += f" ENVID={xtext(reports.envelope_id)}"
        return f"MAIL FROM:<{self._envelope.mail_from}>{options}\r\n".encode()

    def _recipient(self, address: str) -> bytes:
        options = ""
        if self._features.dsn and (reports := self._envelope.reports) is not None:
            options = f" NOTIFY={','.join(sorted(reports.notify)) or 'NEVER'}"
            options += _original(address)
        return f"RCPT TO:<{address}>{options}\r\n".encode()

    def _drain(self, stages: Sequence[Stage]) -> None:
        """Read the answers to commands that were sent along with one that was refused. A server that wants
        the content all the same gets none, and no dot: the connection is given up."""
        try:
            for stage in stages:
                if self.doubt:
                    return
                if self._read(stage).code // 100 == 3:
                    self.doubt = True
        except (NetError, EOFError, Malformed):
            self.doubt = True

    def _dot(self) -> None:
        """Write the final dot. From its first byte on, silence means doubt.

        A plain socket's failed write took nothing, so the stage stays DATA; of a TLS record that
        cannot be said.
        """
        if isinstance(self._sock, PatientTlsSocket):
            self._stage = Stage.DOT
        dot = b".\r\n"
        written = self._sock.send(dot)
        self._stage = Stage.DOT
        if written < len(dot):
            self._sock.sendall(dot[written:])

    def _interrupted(self) -> Delivery:
        """The server spoke or hung up before the dot: its words decide if they are a refusal."""
        self.doubt = True
        reply = self._read()
        failed = classify(reply, self._stage) is Outcome.FAILED
        return self._done(
            Outcome.FAILED if failed else Outcome.DEFERRED, reply, "the server spoke without being asked"
        )

    def _refused(self, reply: Reply | None, outcome: Outcome | None = None) -> Delivery:
        """End a transaction that failed by a reply, with the connection ready for the next one.

        Without RSET the next MAIL may meet "503 Sender already specified".
        """
        delivery_outcome = outcome or classify(reply, self._stage)
        delivery = self._done(delivery_outcome, reply)
        unexpected = reply is not None and reply.code // 100 in (2, 3)
        if self.doubt or unexpected:
            self.doubt = True
            return delivery
        try:
            self._write(b"RSET\r\n")
            if self._read(Stage.RSET).code // 100 != 2 or self._reader.buffered:
                self.doubt = True
        except (NetError, EOFError, Malformed):
            self.doubt = True
        return self._done(delivery_outcome, reply)

    def _write(self, data: bytes) -> None:
        self._sock.sendall(data)

    def _read(self, stage: Stage | None = None) -> Reply:
        reply = reply_from(self._reader)
        self._said(stage or self._stage, reply.code)
        if reply.code == 421:  # RFC 5321 §3.8: the server closes after it, at any time
            self.doubt = True
        return reply

    def _said(self, step: str, code: int | None) -> None:
        """Note a step that is over; RCPT by RCPT with the same code is one."""
        now, times = time.monotonic(), 1
        ms = round(1000 * (now - self._clock))
        self._clock = now
        if step == Stage.RCPT and (last := self.dialogue[-1]).step == step and last.code == code:
            ms, times = ms + last.ms, 1 + last.times
            self.dialogue.pop()
        self.dialogue.append(Exchange(str(step), code, ms, times))

    def _recipient_outcomes(self) -> list[Outcome]:
        return [classify(answer, Stage.RCPT) for answer in self._answers]

    def _done(self, outcome: Outcome, reply: Reply | None, reason: str = "") -> Delivery:
        """The delivery: refused recipients keep their outcome, all others share the message's."""
        results = []
        for address, answer in zip(self._envelope.recipients, self._answers, strict=True):
            own = classify(answer, Stage.RCPT) if answer is not None else Outcome.SENT
            if own is Outcome.SENT:
                results.append(RecipientResult(address, outcome, reply))
            else:
                results.append(RecipientResult(address, own, answer))
        waited = self._sock.budget.waited
        return Delivery(outcome, self._stage, reply, tuple(results), waited, reason)


def _words(error: NetError | EOFError | Malformed | Lost) -> str:
    if isinstance(error, NetError):
        return error.what
    if isinstance(error, EOFError):
        return "the server hung up"
    return str(error)
