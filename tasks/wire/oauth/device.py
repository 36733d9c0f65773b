"""Asking for consent on another device: the device authorization grant (RFC 8628)."""

from dataclasses import dataclass, field
from typing import Final

from tasks.wire.oauth.http import LOOPBACK, origin
from tasks.wire.oauth.tokens import ask, refusal, tokens_in
from tasks.wire.oauth.values import Client, Tokens, TokenServerFailed

GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
USUAL_INTERVAL: Final = 5.0
"""Seconds between two questions, where the server does not say (RFC 8628 §3.2)."""
LONGEST_WAIT: Final = 1800.0


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """What a person needs: open ``verification_uri`` and enter ``user_code``, within ``lifetime`` seconds.
    ``interval`` is how many seconds to leave between two questions."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    lifetime: float
    interval: float


@dataclass(frozen=True, slots=True)
class Pending:
    """No answer of the person's yet; ask again after ``interval`` seconds."""

    interval: float


def start_device(client: Client, device_url: str) -> DeviceCode:
    """Begin (RFC 8628 §3.1). Raises `ClientRefused`, `TokenServerFailed`."""
    fields = {"scope": client.scopes} if client.scopes else {}
    answer = ask(client, device_url, fields)
    if answer.status // 100 != 2 or answer.text("error"):
        raise refusal(client, answer, fields)
    # verification_url: Google's first draft of the standard
    uri = answer.text("verification_uri") or answer.text("verification_url")
    code, shown = answer.text("device_code"), answer.text("user_code")
    if answer.number("interval", 0.0) < 0 or not (
        code and _printable(shown, 64) and _printable(uri, 500) and _is_web(uri)
    ):
        raise TokenServerFailed(f"{origin(client.token_url)} gave no device code that could be used.")
    return DeviceCode(
        code,
        shown,
        uri,
        min(LONGEST_WAIT, max(1.0, answer.number("expires_in", 900.0))),
        min(60.0, answer.number("interval", 0.0)) or USUAL_INTERVAL,
    )


def poll_device(client: Client, device: DeviceCode, interval: float) -> Tokens | Pending:
    """Ask once whether the person consented (RFC 8628 §3.4). ``interval`` is the present one, which grows
    by 5 seconds where the server says slow_down. Raises `GrantRefused` where the person declined or the
    code expired."""
    fields = {"grant_type": GRANT, "device_code": device.device_code}
    answer = ask(client, client.token_url, fields)
    match answer.text("error"):
        case "authorization_pending":
            return Pending(interval)
        case "slow_down":
            return Pending(interval + 5.0)
        case "":
            return tokens_in(client, answer, fields)
        case _:
            raise refusal(client, answer, fields)


def _printable(text: str, most: int) -> bool:
    return 0 < len(text) <= most and text.isprintable()


def _is_web(uri: str) -> bool:
    return uri.startswith("https://") or any(uri.startswith(f"http://{host}") for host in LOOPBACK)
