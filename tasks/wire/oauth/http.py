"""One POST to a token server: over TLS (or to loopback), bounded in time and size, never redirected."""

import http.client
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from tasks.wire import net
from tasks.wire.oauth.values import Client, TokenServerFailed

CONNECT_TIMEOUT: Final = 10.0
LONGEST_ANSWER: Final = 256 * 1024
"""Bytes of an answer; tokens are a few kilobytes."""
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
"""The hosts that may be asked without TLS."""

_PATH: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer: the HTTP status, and the members of the JSON object in its body."""

    status: int
    members: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A member that is text, else ""."""
        value = self.members.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str, default: float) -> float:
        """A member that is a number, or text of one, as some servers write; else ``default``."""
        value = self.members.get(name)
        if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value):
            value = int(value)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def origin(url: str) -> str:
    """``scheme://host:port`` of a URL: the server it leads to. Raises `ValueError` where it leads to none,
    or would carry secrets in the clear."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if not host or parts.username is not None:
        raise ValueError("the address names no server")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        raise ValueError("the address must be https://")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def post(client: Client, url: str, fields: Mapping[str, str], authorization: str | None = None) -> Answer:
    """Send a form and read JSON. Raises `TokenServerFailed`, never with what was sent.

    A server is trusted by the system's authorities or, where these do not know it, by the client's ``ca``.
    """
    try:
        endpoint = _endpoint(url)
    except ValueError as error:
        raise TokenServerFailed(f"the token server cannot be asked: {error}. Check the provider.") from None
    try:
        return _ask(endpoint, url, fields, authorization, client.patience)
    except net.TlsFailed as error:
        if client.ca is None or error.certificate is not net.CertificateFault.ISSUER:
            raise _unreachable(error) from error
    except net.NetError as error:
        raise _unreachable(error) from error
    try:
        return _ask(replace(endpoint, ca=client.ca), url, fields, authorization, client.patience)
    except net.NetError as error:
        raise _unreachable(error) from error


def _endpoint(url: str) -> net.Endpoint:
    parts = urlsplit(origin(url))
    assert parts.hostname is not None
    assert parts.port is not None
    secure = parts.scheme == "https"
    return net.Endpoint(parts.hostname, parts.port, net.Security.TLS if secure else net.Security.NONE)


def _ask(
    endpoint: net.Endpoint, url: str, fields: Mapping[str, str], authorization: str | None, patience: float
) -> Answer:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _PATH.fullmatch(target):
        raise TokenServerFailed("the token server's address holds what no URL may. Check the provider.")
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
        "Connection": "close",
        "User-Agent": "mailwright",
    }
    if authorization is not None:
        headers["Authorization"] = authorization
    sock = net.dial(endpoint, net.Budget(patience), connect_timeout=CONNECT_TIMEOUT)
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port)
    connection.sock = sock
    connection.default_port = 443 if endpoint.security is net.Security.TLS else 80
    try:
        connection.request("POST", target, urlencode(fields).encode(), headers)
        response = connection.getresponse()
        body = response.read(LONGEST_ANSWER + 1)
        status = response.status
    except (http.client.HTTPException, EOFError, ValueError) as error:
        raise TokenServerFailed(
            f"{endpoint} does not answer like a token server ({type(error).__name__}). "
            "It is asked again later; check the provider's token URL."
        ) from None
    except OSError as error:
        raise TokenServerFailed(
            f"{endpoint} ended the connection ({type(error).__name__}). It is asked again later."
        ) from None
    finally:
        connection.close()
        sock.close()
    return _read(endpoint, status, body)


def _read(endpoint: net.Endpoint, status: int, body: bytes) -> Answer:
    if len(body) > LONGEST_ANSWER:
        raise TokenServerFailed(f"{endpoint} answers without end. It is asked again later.")
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise TokenServerFailed(
            f"{endpoint} answered with status {status} and no JSON object. "
            "It is asked again later; check the provider's token URL."
        )
    return Answer(status, members)


def _unreachable(error: net.NetError) -> TokenServerFailed:
    remedy = error.remedy if isinstance(error, net.TlsFailed) else "It is asked again later."
    return TokenServerFailed(f"the token server cannot be asked: {error.what}. {remedy}")
