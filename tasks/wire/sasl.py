"""What a login is proved with, and the SASL messages for an OAuth 2.0 access token.

OAUTHBEARER is RFC 7628, XOAUTH2 the older form that Google made and Microsoft and others took over. Both
say all in the first message. A server that refuses answers with a challenge that holds JSON; the client
must answer that too (``failed``) before it hears the final no.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, TypeAlias


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An OAuth 2.0 access token (RFC 6750), which stands where a password would."""

    text: str = field(repr=False)


Secret: TypeAlias = str | AccessToken
"""What proves a login: a password, or an access token."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """One mechanism with its messages, not yet in base64."""

    mechanism: str
    first: bytes = field(repr=False)
    failed: bytes


PREFERRED: Final = ("OAUTHBEARER", "XOAUTH2")
"""The standard one first; Dovecot and Gmail have both, Microsoft only the second."""


def bearers(offered: Collection[str], login: str, token: AccessToken, host: str, port: int) -> list[Bearer]:
    """The ways to show ``token`` among the ``offered`` mechanisms (upper case), the best first.

    Raises `ValueError` where login or token hold what the messages cannot carry.
    """
    if not token.text or not token.text.isascii() or any(c <= " " or c == "\x7f" for c in token.text):
        raise ValueError("the access token is no token")
    if any(char in login for char in "\0\1"):
        raise ValueError("the login holds a control character")
    made = {"OAUTHBEARER": _oauthbearer, "XOAUTH2": _xoauth2}
    return [made[name](login, token.text, host, port) for name in PREFERRED if name in offered]


def _oauthbearer(login: str, token: str, host: str, port: int) -> Bearer:
    """RFC 7628 §3.1; the login is a GS2 authzid (RFC 5801 §4), in which = and , are escaped."""
    user = login.replace("=", "=3D").replace(",", "=2C")
    first = f"n,a={user},\1host={host}\1port={port}\1auth=Bearer {token}\1\1"
    return Bearer("OAUTHBEARER", first.encode(), b"\1")


def _xoauth2(login: str, token: str, _host: str, _port: int) -> Bearer:
    return Bearer("XOAUTH2", f"user={login}\1auth=Bearer {token}\1\1".encode(), b"")
