"""Asking for consent in a browser: the authorization code with PKCE (RFC 6749 §4.1, RFC 7636, RFC 8252)."""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlencode

from tasks.wire.oauth.values import Client


@dataclass(frozen=True, slots=True)
class CodeRequest:
    """``url`` is for the browser; ``state`` must come back with the code, which ``verifier`` redeems."""

    url: str
    state: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect_uri: str


def code_request(client: Client, authorization_url: str, redirect_uri: str, login: str) -> CodeRequest:
    """A fresh request for consent. A query in ``authorization_url`` stays (RFC 6749 §3.1): that is where
    a service's own parameters stand, such as Google's ``access_type=offline``."""
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
    digest = hashlib.sha256(verifier.encode()).digest()
    query = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": redirect_uri,
        "state": state,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        "login_hint": login,
    }
    if client.scopes:
        query["scope"] = client.scopes
    joint = "&" if "?" in authorization_url else "?"
    return CodeRequest(f"{authorization_url}{joint}{urlencode(query)}", state, verifier, redirect_uri)
