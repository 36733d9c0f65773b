"""TLS: verified always, host name included, TLS 1.2 or newer (RFC 8314 §4.1)."""

import socket
import ssl
from functools import lru_cache

from tasks.wire.net.budget import Budget
from tasks.wire.net.errors import CertificateFault, Disconnected, Injected, TlsFailed
from tasks.wire.net.patience import Patience
from tasks.wire.net.sockets import PatientSocket, PatientTlsSocket
from tasks.wire.net.values import Endpoint, Security, Step


@lru_cache(maxsize=64)
def tls_context(ca: str | None) -> ssl.SSLContext:
    """The context for one set of authorities: PEM text, or ``None`` for the system's.

    It takes 42 ms to build, so it is kept. Raises `ValueError` where ``ca`` is no PEM.
    """
    try:
        context = ssl.create_default_context(cadata=ca)
    except ssl.SSLError as error:
        raise ValueError("not a certificate in PEM") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is not None:
        # A private authority may be a bare self-signed server certificate, without key identifiers.
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    context.sslsocket_class = PatientTlsSocket
    return context


def start_tls(sock: PatientSocket, endpoint: Endpoint, budget: Budget) -> PatientTlsSocket:
    """Put TLS over a connection whose server has just agreed to STARTTLS.

    The caller has read exactly the reply line. Plaintext behind it was put there by someone on the
    way and is dropped with `Injected`. Raises `TlsFailed`, `TimedOut`, `Disconnected`; the socket is
    then closed.
    """
    if peeked(sock):
        sock.close()
        raise injected(endpoint)
    return wrap(sock, endpoint, budget, Step.STARTTLS)


def peeked(sock: PatientSocket) -> bool:
    """Whether a byte lies unread in the kernel."""
    try:
        return bool(socket.socket.recv(sock, 1, socket.MSG_PEEK))
    except OSError:  # nothing there, or an end that the handshake will meet
        return False


def injected(endpoint: Endpoint) -> Injected:
    """The error for plaintext between the agreement to STARTTLS and the handshake."""
    return Injected(
        f"{endpoint} sent plaintext after agreeing to STARTTLS, which only an attacker does",
        endpoint,
        Step.STARTTLS,
        "Nothing was sent to it. Choose SSL/TLS, or use another network.",
    )


def wrap(sock: PatientSocket, endpoint: Endpoint, budget: Budget, step: Step) -> PatientTlsSocket:
    """Shake hands over ``sock``, which is taken over. Errors as `start_tls`."""
    try:
        context = tls_context(endpoint.ca)
    except ValueError as error:
        sock.close()
        raise TlsFailed(
            f"The private authority given for {endpoint} is not a certificate in PEM",
            endpoint,
            step,
            "Give it as text that begins with -----BEGIN CERTIFICATE-----.",
        ) from error
    secured = _over(sock, context, endpoint, budget, step)
    try:
        secured.handshake()
    except OSError as error:
        secured.close()
        raise explain(error, endpoint, step) from error
    except BaseException:
        secured.close()
        raise
    return secured


def _over(
    sock: PatientSocket, context: ssl.SSLContext, endpoint: Endpoint, budget: Budget, step: Step
) -> PatientTlsSocket:
    try:
        secured = context.wrap_socket(sock, server_hostname=endpoint.host, do_handshake_on_connect=False)
    except (OSError, ValueError) as error:
        sock.close()
        raise explain(error, endpoint, step) from error
    assert isinstance(secured, PatientTlsSocket)
    secured.patience = Patience(endpoint, budget, step)
    return secured


_FAULTS = {
    9: CertificateFault.NOT_YET_VALID,
    10: CertificateFault.EXPIRED,
    2: CertificateFault.ISSUER,
    18: CertificateFault.ISSUER,
    19: CertificateFault.ISSUER,
    20: CertificateFault.ISSUER,
    21: CertificateFault.ISSUER,
    62: CertificateFault.HOST_NAME,
    64: CertificateFault.HOST_NAME,
}
"""OpenSSL's X509_V_ERR numbers."""

_REMEDIES = {
    CertificateFault.ISSUER: "If the server has a private authority, give its certificate to the provider.",
    CertificateFault.EXPIRED: "Its administrator must renew it; check this machine's clock too.",
    CertificateFault.NOT_YET_VALID: "Check this machine's clock.",
    CertificateFault.HOST_NAME: "Use the host name that the certificate was made for.",
    CertificateFault.OTHER: "Its administrator must install another.",
}


def explain(error: Exception, endpoint: Endpoint, step: Step) -> TlsFailed | Disconnected:
    """Word what a handshake ended with."""
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = _FAULTS.get(error.verify_code, CertificateFault.OTHER)
        return TlsFailed(
            f"The certificate of {endpoint} is not accepted: {fault} ({error.verify_message})",
            endpoint,
            step,
            _REMEDIES[fault],
            certificate=fault,
        )
    reason = (getattr(error, "reason", None) or "").upper()
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"):
        return _plaintext(endpoint, step)
    if reason in ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE"):
        return TlsFailed(
            f"{endpoint} speaks only a TLS older than 1.2",
            endpoint,
            step,
            "Its administrator must update it.",
        )
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return TlsFailed(
            f"No TLS with {endpoint}: {reason.replace('_', ' ').lower() or 'handshake failed'}",
            endpoint,
            step,
            "Check that this is its TLS port.",
        )
    return Disconnected(
        f"{endpoint} ended the connection in the TLS handshake",
        endpoint,
        step,
        "Check that this is its TLS port, or choose STARTTLS.",
    )


def _plaintext(endpoint: Endpoint, step: Step) -> TlsFailed:
    remedy = "Choose STARTTLS or none, or give its TLS port."
    if endpoint.security is Security.STARTTLS:
        remedy = "Something on the way, or the server, breaks TLS; its administrator must look."
    return TlsFailed(f"{endpoint} answers without TLS", endpoint, step, remedy, plaintext=True)
