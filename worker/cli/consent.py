"""Asking a person to consent: at a browser that comes back to this machine, or on any device by a code."""

import hmac
import http.server
import time
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, urlsplit

import click

from config.errors import UserError
from tasks.mailboxes.authorizing import Consent
from tasks.wire.oauth import Pending, Tokens, TokenServerFailed
from worker.cli.context import plain

LOOPBACK: Final = "127.0.0.1"
NAME: Final = "localhost"
"""How the browser is told to find us: Microsoft takes any port only under this name."""
_DONE: Final = b"<!doctype html><title>mailwright</title><p>Thank you. You can close this window."
_NOT_OURS: Final = b"<!doctype html><title>mailwright</title><p>Nobody here waits for this answer."


def in_browser(consent: Consent, port: int, patience: float) -> Tokens:
    """Let a browser on this machine consent (RFC 8252 §7.3), within ``patience`` seconds.

    ``port`` 0 takes any free one. Raises `UserError` where the person declined, or nobody came.
    """
    try:
        server = _Answers((LOOPBACK, port))
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "no such port"
        raise UserError(
            f"port {port} on {LOOPBACK} cannot be listened on: {why}. Choose another: --port N"
        ) from None
    with server:
        request = consent.in_browser(f"http://{NAME}:{server.server_address[1]}/")
        server.state = request.state
        say(f"Open this address in a browser on this machine, and consent as {consent.login}:")
        say(f"  {request.url}")
        say("(On another machine, use --device, or forward the port by ssh -L.)")
        code = server.wait(patience)
    return consent.redeem(request, code)


def on_device(consent: Consent, patience: float) -> Tokens:
    """Let any device consent by entering a code (RFC 8628), within ``patience`` seconds. Raises
    `UserError` where the person declined, or nobody came."""
    device = consent.on_device()
    until = time.monotonic() + min(patience, device.lifetime)
    say(f"Open {device.verification_uri} on any device, consent as {consent.login}, and enter the code")
    say(f"  {device.user_code}")
    interval = device.interval
    while time.monotonic() < until:
        time.sleep(min(interval, max(0.0, until - time.monotonic())))
        try:
            answer = consent.poll(device, interval)
        except TokenServerFailed:
            interval *= 2  # RFC 8628 §3.5
            continue
        match answer:
            case Pending(longer):
                interval = longer
            case Tokens():
                return answer
    raise nobody(patience)


def say(line: str) -> None:
    """Tell the person, apart from what programs read."""
    click.echo(plain(line), err=True)


def nobody(patience: float) -> UserError:
    """The end of waiting."""
    return UserError(f"nobody consented within {patience:.0f} seconds. Run the command again.")


class _Answers(http.server.HTTPServer):
    """Waits for the one answer with our state; everything else is turned away."""

    state = ""
    query: dict[str, str] | None = None

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, _Handler)

    def wait(self, patience: float) -> str:
        """The code of the answer."""
        until = time.monotonic() + patience
        while self.query is None:
            self.timeout = until - time.monotonic()
            if self.timeout <= 0:
                raise nobody(patience)
            self.handle_request()
        if not self.query.get("code"):
            words = " ".join(filter(None, (self.query.get("error"), self.query.get("error_description"))))
            raise UserError(f'consent was not given: "{plain(words)[:300]}". Run the command again.')
        return self.query["code"]

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away in the middle is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Answers
    timeout = 5.0

    def do_GET(self) -> None:
        """The browser, sent back by the service."""
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        ours = parts.path == "/" and hmac.compare_digest(
            query.get("state", "").encode(), self.server.state.encode()
        )
        if ours:
            self.server.query = query
        body = _DONE if ours else _NOT_OURS
        self.send_response(HTTPStatus.OK if ours else HTTPStatus.NOT_FOUND)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: the address holds the code."""
