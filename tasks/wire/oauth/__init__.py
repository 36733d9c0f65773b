"""OAuth 2.0 as a client: asking for consent, and turning what it gave into access tokens."""

from tasks.wire.oauth.consent import CodeRequest, code_request
from tasks.wire.oauth.device import DeviceCode, Pending, poll_device, start_device
from tasks.wire.oauth.http import LONGEST_ANSWER, origin
from tasks.wire.oauth.tokens import redeem, refresh
from tasks.wire.oauth.values import Client, ClientRefused, GrantRefused, Tokens, TokenServerFailed

__all__ = [
    "LONGEST_ANSWER",
    "Client",
    "ClientRefused",
    "CodeRequest",
    "DeviceCode",
    "GrantRefused",
    "Pending",
    "TokenServerFailed",
    "Tokens",
    "code_request",
    "origin",
    "poll_device",
    "redeem",
    "refresh",
    "start_device",
]
