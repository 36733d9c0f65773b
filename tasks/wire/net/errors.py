"""What can go wrong on the way to a server and on the wire, each with its remedy."""

from enum import StrEnum

from config.errors import TransientError
from tasks.wire.net.values import Endpoint, Step


class NetError(TransientError):
    """``what`` happened, in which ``step``, at which ``endpoint``; ``remedy`` is a sentence on what to do."""

    code = "network"

    def __init__(self, what: str, endpoint: Endpoint, step: Step, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}")
        self.what = what
        self.endpoint = endpoint
        self.step = step
        self.remedy = remedy


class ResolveFailed(NetError):
    """The host name has no address, or no name server told one in time."""

    code = "resolve_failed"


class ConnectFailed(NetError):
    """No address of the host took the connection."""

    code = "connect_failed"


class CertificateFault(StrEnum):
    """Why a certificate was not accepted."""

    ISSUER = "unknown issuer"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    HOST_NAME = "wrong host name"
    OTHER = "not acceptable"


class TlsFailed(NetError):
    """No protected connection came about; ``certificate`` is set where the certificate was the reason.

    ``plaintext`` means that the port answers without TLS.
    """

    code = "tls_failed"

    def __init__(
        self,
        what: str,
        endpoint: Endpoint,
        step: Step,
        remedy: str,
        *,
        certificate: CertificateFault | None = None,
        plaintext: bool = False,
    ) -> None:
        super().__init__(what, endpoint, step, remedy)
        self.certificate = certificate
        self.plaintext = plaintext


class TimedOut(NetError):
    """The waiting budget is used up."""

    code = "timed_out"


class Injected(NetError):
    """Plaintext lay buffered where the TLS handshake should start (RFC 3207 §6, RFC 9051 §11.3)."""

    code = "injected"


class Disconnected(NetError):
    """The server, or something on the way, ended the connection."""

    code = "disconnected"
