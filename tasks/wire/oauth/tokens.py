"""Tokens for a grant (RFC 6749 §4.1.3, §5, §6), and the one place where a refusal is judged."""

import base64
import unicodedata
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote_plus

from tasks.wire.oauth.http import Answer, origin, post
from tasks.wire.oauth.values import Client, ClientRefused, GrantRefused, Tokens, TokenServerFailed

GRANT_ERRORS: Final = frozenset(
    {"invalid_grant", "interaction_required", "consent_required", "login_required", "access_denied",
     "expired_token", "authorization_declined", "bad_verification_code"}
)  # fmt: skip
"""RFC 6749 §5.2 and RFC 8628 §3.5; the others are Microsoft's words for *ask the user again*."""
CLIENT_ERRORS: Final = frozenset(
    {"invalid_client", "unauthorized_client", "invalid_scope", "invalid_request", "unsupported_grant_type",
     "invalid_resource"}
)  # fmt: skip
USUAL_LIFETIME: Final = 3600.0
"""Seconds, where the server leaves ``expires_in`` out."""
LONGEST_LIFETIME: Final = 30 * 86_400.0
LONGEST_TOKEN: Final = 16_384
"""Characters."""


def redeem(client: Client, code: str, verifier: str, redirect_uri: str) -> Tokens:
    """Turn an authorization code into tokens (RFC 6749 §4.1.3, RFC 7636 §4.5)."""
    return tokens_of(
        client,
        {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": redirect_uri,
        },
    )


def refresh(client: Client, refresh_token: str) -> Tokens:
    """A new access token, and a new refresh token where the server rotates them (RFC 6749 §6)."""
    return tokens_of(client, {"grant_type": "refresh_token", "refresh_token": refresh_token})


def tokens_of(client: Client, fields: Mapping[str, str]) -> Tokens:
    """Ask for tokens. Raises `GrantRefused`, `ClientRefused`, `TokenServerFailed`."""
    return tokens_in(client, ask(client, client.token_url, fields), fields)


def tokens_in(client: Client, answer: Answer, fields: Mapping[str, str]) -> Tokens:
    """The tokens in an answer to ``fields``; raises as `tokens_of`."""
    if answer.status // 100 != 2 or answer.text("error"):
        raise refusal(client, answer, fields)
    access, renewal = answer.text("access_token"), answer.text("refresh_token")
    if not _is_token(access) or (renewal and not _is_token(renewal)):
        raise TokenServerFailed(f"{origin(client.token_url)} gave no token that could be used.")
    if answer.text("token_type").lower() not in ("bearer", ""):
        raise TokenServerFailed(f"{origin(client.token_url)} gave a token that is no bearer token.")
    lifetime = min(LONGEST_LIFETIME, max(1.0, answer.number("expires_in", USUAL_LIFETIME)))
    return Tokens(access, renewal or None, lifetime)


def ask(client: Client, url: str, fields: Mapping[str, str]) -> Answer:
    """A request of this client. Its secret goes in the body, where all the big services take it; a server
    that knows only the header (RFC 6749 §2.3.1) is asked once more."""
    form = {**fields, "client_id": client.client_id}
    if client.secret is None:
        return post(client, url, form)
    answer = post(client, url, form | {"client_secret": client.secret})
    if answer.text("error") != "invalid_client":
        return answer
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.secret)}"
    basic = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return post(client, url, fields, basic)


def refusal(
    client: Client, answer: Answer, fields: Mapping[str, str]
) -> GrantRefused | ClientRefused | TokenServerFailed:
    """Judge an answer without tokens. Only a 4yz with a word of the standard decides."""
    error, where = answer.text("error"), origin(client.token_url)
    words = harmless(
        f"{error}: {answer.text('error_description')}".removesuffix(": "),
        [client.secret or "", *(fields.get(name, "") for name in _SECRET_FIELDS)],
    )
    if answer.status // 100 in (2, 4) and answer.status != 429:
        if error in GRANT_ERRORS:
            return GrantRefused(f'{where} refused the consent given before: "{words}".', words)
        if error in CLIENT_ERRORS:
            return ClientRefused(
                f'{where} does not accept this application: "{words}". '
                "Check the provider's OAuth client id, secret and scopes."
            )
    return TokenServerFailed(f"{where} gave no token (status {answer.status}{', ' if words else ''}{words}).")


_SECRET_FIELDS: Final = ("code", "code_verifier", "refresh_token", "device_code")


def harmless(words: str, secrets: list[str]) -> str:
    """A server's words as one bounded line; nothing if they hold what must not be told."""
    line = " ".join("".join(" " if unicodedata.category(c)[0] == "C" else c for c in words[:2000]).split())
    if any(secret and secret in words for secret in secrets):
        return ""
    return line[:300]


def _is_token(text: str) -> bool:
    return 0 < len(text) <= LONGEST_TOKEN and all("!" <= char <= "~" for char in text)
