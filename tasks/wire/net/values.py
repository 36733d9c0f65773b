"""Where to connect, and how far a connection has come."""

from dataclasses import dataclass
from enum import StrEnum


class Security(StrEnum):
    """How a connection is protected: TLS at once, STARTTLS after the greeting, or not at all."""

    TLS = "tls"
    STARTTLS = "starttls"
    NONE = "none"


class Step(StrEnum):
    """The steps of a connection in the order people see them; an error names the one it happened in."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    TLS = "tls"
    GREETING = "greeting"
    CAPABILITY = "capability"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    LOGIN = "login"
    AUTH = "auth"
    SELECT = "select"
    DIALOGUE = "dialogue"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One port of one server.

    ``host`` is a DNS name in A-labels or an IP literal without brackets. ``ca`` is PEM text: then
    only these authorities are trusted; ``None`` is the system's trust.
    """

    host: str
    port: int
    security: Security
    ca: str | None = None

    def __str__(self) -> str:
        """``host:port``, an IPv6 literal in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
