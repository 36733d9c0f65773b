"""Connections under a budget of waiting: resolve, connect, TLS, and sockets that obey it."""

from tasks.wire.net.budget import Budget
from tasks.wire.net.dial import Address, connect, dial, find, resolve
from tasks.wire.net.errors import (
    CertificateFault,
    ConnectFailed,
    Disconnected,
    Injected,
    NetError,
    ResolveFailed,
    TimedOut,
    TlsFailed,
)
from tasks.wire.net.patience import Patience
from tasks.wire.net.sockets import AnySocket, PatientSocket, PatientTlsSocket
from tasks.wire.net.tls import start_tls, tls_context, wrap
from tasks.wire.net.values import Endpoint, Security, Step

__all__ = [
    "Address",
    "AnySocket",
    "Budget",
    "CertificateFault",
    "ConnectFailed",
    "Disconnected",
    "Endpoint",
    "Injected",
    "NetError",
    "Patience",
    "PatientSocket",
    "PatientTlsSocket",
    "ResolveFailed",
    "Security",
    "Step",
    "TimedOut",
    "TlsFailed",
    "connect",
    "dial",
    "find",
    "resolve",
    "start_tls",
    "tls_context",
    "wrap",
]
