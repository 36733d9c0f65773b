"""One held SMTP connection: opened once, many messages, discarded at the first doubt.

open ──> usable ──send──> usable ──send──> …
            │                └── 421, silence, junk, a withheld dot ──> not usable
            └── the server hangs up while nobody sends ──> not usable
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Self

from tasks.wire.net import Budget, Endpoint, NetError, Step
from tasks.wire.sasl import Secret
from tasks.wire.smtp.opening import Opening, Speaker, Steps, features_of
from tasks.wire.smtp.replies import Malformed
from tasks.wire.smtp.transaction import Transaction
from tasks.wire.smtp.values import Delivery, Envelope, Exchange

FAREWELL: Final = 1.0
"""Seconds that QUIT may wait."""


class SmtpSession:
    """A session that may send. Not for two threads at once."""

    def __init__(self, speaker: Speaker, opened: Sequence[Exchange] = ()) -> None:
        self._reader = speaker.reader
        self._doubt = False
        self._opened = tuple(opened)
        self.features = features_of(speaker)

    @classmethod
    def open(
        cls,
        endpoint: Endpoint,
        login: str | None,
        secret: Secret | None,
        budget: Budget,
        *,
        connect_timeout: float = 10.0,
        local_hostname: str | None = None,
        steps: Steps | None = None,
    ) -> Self:
        """Connect, secure and log in within ``budget``; without ``login`` there is no AUTH.

        ``connect_timeout`` is for each address, in seconds. ``steps`` hears of each finished step: resolve,
        connect, tls, greeting, ehlo, starttls, auth. ``local_hostname`` is what EHLO says; by default our
        address as a literal. Raises `SessionFailed`.
        """
        opening = Opening(endpoint, budget, connect_timeout, steps)
        return cls(opening.run(login, secret, local_hostname), opening.dialogue)

    @property
    def usable(self) -> bool:
        """Whether the next message may go over this connection: no doubt, and the server is silent.

        Ask before each `send` on a connection that rested: servers hang up on idle ones.
        """
        if not self._doubt and self._reader.spoke():
            self._doubt = True
        return not self._doubt

    def send(
        self,
        envelope: Envelope,
        content: bytes,
        budget: Budget,
        *,
        before_data: Callable[[], None] | None = None,
        before_dot: Callable[[], bool] | None = None,
    ) -> Delivery:
        """Send one message, waiting within ``budget``; what the server does is told by the `Delivery`.

        ``before_data`` is called before DATA is sent: once a recipient was accepted, or, where PIPELINING is
        offered and DATA goes along with the envelope, before that. ``before_dot`` is
        called when all but the final dot is written; ``False`` withholds the dot: the connection is
        cut and the message deferred. What they raise passes through, the connection cut.
        """
        self._reader.sock.budget = budget
        self._reader.sock.step = Step.DIALOGUE
        transaction = Transaction(self._reader, self.features, envelope, content)
        try:
            delivery = transaction.run(self._doubt, before_data, before_dot)
        except BaseException:
            self._cut()
            raise
        if transaction.doubt:
            self._cut()
        opened, self._opened = self._opened, ()
        return replace(delivery, dialogue=(*opened, *transaction.dialogue))

    def close(self) -> None:
        """Say QUIT, where all is well, and close; never raises."""
        if self.usable:
            self._reader.sock.budget = Budget(FAREWELL)
            with suppress(NetError, EOFError, Malformed):
                self._reader.sock.sendall(b"QUIT\r\n")
                self._reader.read()
        self._cut()

    def _cut(self) -> None:
        self._doubt = True
        with suppress(OSError):
            self._reader.sock.close()
