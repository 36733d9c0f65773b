"""Which faults speak against the host, and not only against the mailbox that met them."""

from typing import Final

from tasks.wire import imap
from tasks.wire.net import NetError, Step
from tasks.wire.smtp import SessionFailed, Stage

_BEFORE_LOGIN: Final = frozenset({Step.RESOLVE, Step.CONNECT, Step.TLS, Step.GREETING, Step.STARTTLS})

_BEFORE_AUTH: Final = frozenset({Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.STARTTLS})


def blames_host(error: Exception, *, first: bool) -> bool:
    """Whether ``error`` counts against a host.

    What happens before the login has nothing to do with the mailbox. Later a hang-up, silence, or *too many,
    later* (THROTTLED, UNAVAILABLE, LIMIT …) may be about one account or one message: each mailbox counts only
    with the ``first`` in a row.
    """
    match error:
        case NetError():
            return first or error.step in _BEFORE_LOGIN
        case SessionFailed():
            return not error.login_refused and (first or error.stage in _BEFORE_AUTH)
        case imap.ServerBusy() | imap.Disconnected() | imap.ProtocolError():
            return first or error.before_login
        case _:
            return False
