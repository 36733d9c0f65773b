"""A token server of our own: OAuth 2.0 as the big services do it, and misbehaving on request.

    browser ──GET /authorize──> 302 to the redirect address with code and state      RFC 6749 §4.1, 7636
    device  ──POST /device────> user code; `approve` or `deny` it                    RFC 8628
    client  ──POST /token─────> tokens for a code, a device code or a refresh token  RFC 6749 §5, §6
    mail server ──POST /introspect──> whose token is that, and is it good            RFC 7662

Refresh tokens rotate: each works once, and one that is used again ends its whole grant, as strict
servers do. The person at the browser is always ``user`` and consents at once.
"""

import base64
import hashlib
import http.server
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, quote, unquote_plus, urlencode, urlsplit

from lab.ports import LOOPBACK

DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(slots=True)
class Manners:
    """How the server behaves; may be changed while it runs.

    ``lifetime`` is an access token's, in seconds. ``pause`` is what it waits before it answers at the
    token endpoint. ``instead`` is a whole answer (status, body) in place of the right one there.
    ``secret`` is the client's, None for a public client; ``basic_only`` wants it in the header.
    """

    user: str = "anna@test.example"
    lifetime: float = 3600.0
    rotate: bool = True
    pause: float = 0.0
    instead: tuple[int, bytes] | None = None
    secret: str | None = "client secret"
    basic_only: bool = False
    interval: float = 0.1
    consents: bool = True


@dataclass(slots=True)
class Grant:
    """One consent: whose, and what it gave so far."""

    user: str
    revoked: bool = False
    refresh: set[str] = field(default_factory=set)
    spent: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Asked:
    """A code that waits to be redeemed. ``user`` None: nobody consented yet; "" means declined."""

    user: str | None
    challenge: str = ""
    redirect_uri: str = ""


class TokenServer:
    """The server, in threads of its own, on a free loopback port. ``asked`` counts requests by grant type."""

    def __init__(self, manners: Manners | None = None, client_id: str = "mailwright") -> None:
        self.manners = manners or Manners()
        self.client_id = client_id
        self.asked: Counter[str] = Counter()
        self.grants: list[Grant] = []
        self.issued: list[str] = []
        """Every token given away, to look for where none may be."""
        self._access: dict[str, tuple[Grant, float]] = {}
        self._codes: dict[str, _Asked] = {}
        self._devices: dict[str, str] = {}
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"lab": self})
        self._server = http.server.ThreadingHTTPServer((LOOPBACK, 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}"

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def grant(self, user: str) -> tuple[str, str]:
        """Consent without a browser: an access and a refresh token."""
        with self._lock:
            given = self._tokens(self._new_grant(user))
        return given["access_token"], given["refresh_token"]

    def approve(self, user_code: str, user: str) -> None:
        """The person with the device consents."""
        with self._lock:
            self._codes[self._devices[user_code]].user = user

    def deny(self, user_code: str) -> None:
        """The person with the device declines."""
        self.approve(user_code, "")

    def expire_access(self) -> None:
        """End every access token now, before its time."""
        with self._lock:
            self._access.clear()

    def revoke(self, user: str) -> None:
        """End every grant of a user, and its access tokens."""
        with self._lock:
            for grant in self.grants:
                grant.revoked = grant.revoked or grant.user == user
            self._access = {token: held for token, held in self._access.items() if held[0].user != user}

    def whose(self, token: str) -> str | None:
        """The user of an access token that is good now."""
        with self._lock:
            grant, until = self._access.get(token, (None, 0.0))
        return grant.user if grant is not None and time.time() < until and not grant.revoked else None

    def authorize(self, query: Mapping[str, str]) -> str:
        """Where the browser is sent."""
        if query.get("client_id") != self.client_id or query.get("response_type") != "code":
            raise _Refused("invalid_request")
        back = {"state": query.get("state", "")}
        if self.manners.consents:
            code = self._new_code(self.manners.user, query)
            back["code"] = code
        else:
            back |= {"error": "access_denied", "error_description": "the user said no"}
        joint = "&" if "?" in query["redirect_uri"] else "?"
        return f"{query['redirect_uri']}{joint}{urlencode(back)}"

    def device(self, form: Mapping[str, str]) -> dict[str, Any]:
        """The answer at the device endpoint."""
        if form.get("client_id") != self.client_id:
            raise _Refused("invalid_client")
        code, shown = self._new_code(None, {}), secrets.token_hex(4).upper()
        self._devices[shown] = code
        return {
            "device_code": code,
            "user_code": shown,
            "verification_uri": f"{self.url}/enter",
            "expires_in": 60,
            "interval": self.manners.interval,
        }

    def token(self, form: Mapping[str, str], authorization: str | None) -> dict[str, Any]:
        """The answer at the token endpoint."""
        grant_type = form.get("grant_type", "")
        self._check_client(form, authorization)
        self.asked[grant_type] += 1
        with self._lock:
            match grant_type:
                case "authorization_code":
                    return self._redeem(form)
                case "refresh_token":
                    return self._refresh(form.get("refresh_token", ""))
                case _ if grant_type == DEVICE_GRANT:
                    return self._of_device(form.get("device_code", ""))
                case _:
                    raise _Refused("unsupported_grant_type")

    def _check_client(self, form: Mapping[str, str], authorization: str | None) -> None:
        given = form.get("client_id", ""), form.get("client_secret")
        if self.manners.basic_only:
            pair = base64.b64decode((authorization or "").removeprefix("Basic ")).decode()
            login, _, secret = pair.partition(":")
            given = unquote_plus(login), unquote_plus(secret)
        if given != (self.client_id, self.manners.secret):
            raise _Refused("invalid_client", 401)

    def _redeem(self, form: Mapping[str, str]) -> dict[str, Any]:
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            asked is None
            or not asked.user
            or (asked.challenge, asked.redirect_uri)
            != (
                challenge,
                form.get("redirect_uri"),
            )
        ):
            raise _Refused("invalid_grant")
        return self._tokens(self._new_grant(asked.user))

    def _of_device(self, code: str) -> dict[str, Any]:
        asked = self._codes.get(code)
        if asked is None:
            raise _Refused("expired_token")
        if asked.user is None:
            raise _Refused("authorization_pending")
        del self._codes[code]
        if not asked.user:
            raise _Refused("access_denied")
        return self._tokens(self._new_grant(asked.user))

    def _refresh(self, token: str) -> dict[str, Any]:
        for grant in self.grants:
            if token in grant.spent:
                grant.revoked = True  # a stolen token, as far as anyone can tell
            if token in grant.refresh and not grant.revoked:
                if self.manners.rotate:
                    grant.refresh.discard(token)
                    grant.spent.add(token)
                return self._tokens(grant)
        raise _Refused("invalid_grant")

    def _new_grant(self, user: str) -> Grant:
        self.grants.append(Grant(user))
        return self.grants[-1]

    def _new_code(self, user: str | None, query: Mapping[str, str]) -> str:
        code = secrets.token_urlsafe(16)
        self._codes[code] = _Asked(user, query.get("code_challenge", ""), query.get("redirect_uri", ""))
        return code

    def _tokens(self, grant: Grant) -> dict[str, Any]:
        access = secrets.token_urlsafe(64)
        self._access[access] = grant, time.time() + self.manners.lifetime
        given = {"access_token": access, "token_type": "Bearer", "expires_in": self.manners.lifetime}
        if self.manners.rotate or not grant.refresh:
            given["refresh_token"] = secrets.token_urlsafe(32)
            grant.refresh.add(str(given["refresh_token"]))
            self.issued.append(str(given["refresh_token"]))
        self.issued.append(access)
        return given


class _Refused(Exception):
    def __init__(self, error: str, status: int = 400) -> None:
        super().__init__(error)
        self.error = error
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    lab: TokenServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The browser, and mail servers that introspect by GET."""
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/introspect":
            token = parts.query.rpartition("token=")[2]
            self._introspect(unquote_plus(token))
            return
        if parts.path != "/authorize":
            self._send(404, b"{}")
            return
        try:
            where = self.lab.authorize(query)
        except (_Refused, KeyError):
            self._send(400, b"{}")
            return
        self.send_response(302)
        self.send_header("Location", quote(where, safe=":/?&=%#+"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        """Everyone else."""
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        form = {name: values[0] for name, values in parse_qs(raw).items()}
        path = urlsplit(self.path).path
        manners = self.lab.manners
        if path == "/introspect":
            self._introspect(form.get("token", ""))
            return
        if path == "/token":
            time.sleep(manners.pause)
            if manners.instead is not None:
                self.lab.asked["instead"] += 1
                self._send(*manners.instead)
                return
        try:
            match path:
                case "/token":
                    answer = self.lab.token(form, self.headers.get("Authorization"))
                case "/device":
                    answer = self.lab.device(form)
                case _:
                    self._send(404, b"{}")
                    return
        except _Refused as refused:
            words = {"error": refused.error, "error_description": f"{refused.error} said the lab"}
            self._send(refused.status, json.dumps(words).encode())
            return
        self._send(200, json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _introspect(self, token: str) -> None:
        self.lab.asked["introspect"] += 1
        user = self.lab.whose(token)
        known = {"active": "true", "username": user} if user else {"active": "false"}
        self._send(200, json.dumps(known).encode())

    def _send(self, status: int, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:  # the client did not wait, or had enough
            self.close_connection = True
