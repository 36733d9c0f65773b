"""From the greeting to a session that is logged in (RFC 9051 §6.1, §6.2, RFC 4959).

greeting ──> [STARTTLS ──> capabilities again] ──> a login ──> capabilities again

The login is AUTHENTICATE PLAIN or LOGIN with a password, AUTHENTICATE OAUTHBEARER or XOAUTH2 with an
access token.
"""

import base64
from collections.abc import Callable, Sequence

from tasks.wire import net
from tasks.wire.imap.channel import Channel, ignore, quoted
from tasks.wire.imap.client import Client
from tasks.wire.imap.errors import LoginRefused, ProtocolError, clean, login_error
from tasks.wire.imap.scanner import Continuation, Data, Status
from tasks.wire.sasl import AccessToken, Bearer, Secret, bearers

Told = Callable[[Data | Status], None]

NOT_QUOTABLE = frozenset(range(32)) | frozenset(range(127, 256))
"""Bytes that a quoted string of LOGIN cannot carry everywhere."""


def secure(channel: Channel, client: Client) -> None:
    """STARTTLS (RFC 9051 §6.2.1): never skipped, and nothing learned before it is kept."""
    if client.preauthenticated or "STARTTLS" not in client.capabilities:
        raise net.TlsFailed(
            f"{channel.endpoint} does not offer STARTTLS",
            channel.endpoint,
            net.Step.STARTTLS,
            "Choose SSL/TLS with its port, usually 993; if it used to work, something on the way strips it.",
            plaintext=True,
        )
    channel.run(b"STARTTLS", "STARTTLS", ignore)
    channel.start_tls()
    client.entered("NONAUTH", capabilities(channel))


def capabilities(channel: Channel) -> frozenset[str]:
    """Ask CAPABILITY."""
    found: list[frozenset[str]] = []

    def told(response: Data | Status) -> None:
        found.extend(_offered(response))

    reply = channel.run(b"CAPABILITY", "CAPABILITY", told)
    found.extend(_offered(reply))
    if not found:
        raise ProtocolError("The server does not tell its capabilities.")
    return found[-1]


def log_in(channel: Channel, offered: frozenset[str], login: str, secret: Secret) -> frozenset[str]:
    """Log in with the best way offered and return what is offered then.

    Raises `LoginRefused` or `ServerBusy`. No message repeats what was sent, even if the server does.
    """
    found: list[frozenset[str]] = []

    def told(response: Data | Status) -> None:
        found.extend(_offered(response))

    match secret:
        case AccessToken():
            reply = _with_token(channel, offered, login, secret, told)
        case str():
            reply = _with_password(channel, offered, login.encode(), secret.encode(), told)
    found.extend(_offered(reply))
    return found[-1] if found else capabilities(channel)


def _with_password(
    channel: Channel, offered: frozenset[str], user: bytes, secret: bytes, told: Told
) -> Status:
    if b"\0" in user + secret:
        raise LoginRefused("The login or password holds a NUL, which no server takes.")
    payload = base64.b64encode(b"\0" + user + b"\0" + secret)
    reply: Status | None = None
    if "AUTH=PLAIN" in offered:
        reply = _authenticate(channel, payload, "SASL-IR" in offered, told)
    if (reply is None or _not_understood(reply)) and "LOGINDISABLED" not in offered:
        reply = _login(channel, user, secret, "LITERAL+" in offered or "LITERAL-" in offered, told)
    if reply is None:
        raise LoginRefused(
            "The server takes no password on this connection (LOGINDISABLED)"
            + ("; choose SSL/TLS or STARTTLS." if channel.endpoint.security is net.Security.NONE else ".")
        )
    if reply.kind != "OK":
        raise login_error(reply.kind, reply.response_code, _harmless(reply.text, secret, payload))
    return reply


def _with_token(
    channel: Channel, offered: frozenset[str], login: str, token: AccessToken, told: Told
) -> Status:
    """AUTHENTICATE with an access token; a refusal comes as a challenge first (RFC 7628 §3.2.2)."""
    mechanisms = {word.removeprefix("AUTH=") for word in offered if word.startswith("AUTH=")}
    endpoint = channel.endpoint
    try:
        ways = bearers(mechanisms, login, token, endpoint.host, endpoint.port)
    except ValueError as error:
        raise LoginRefused(f"No login was tried: {error}.") from None
    reply: Status | None = None
    payload = b""
    for way in ways:
        payload = base64.b64encode(way.first)
        reply = _show_token(channel, way, payload, "SASL-IR" in offered, told)
        if not _not_understood(reply):
            break
    if reply is None:
        raise LoginRefused("The server offers no login by OAuth 2.0 (neither OAUTHBEARER nor XOAUTH2).")
    if reply.kind != "OK":
        words = _harmless(reply.text, token.text.encode(), payload)
        raise login_error(reply.kind, reply.response_code, words)
    return reply


def _show_token(channel: Channel, way: Bearer, payload: bytes, at_once: bool, told: Told) -> Status:
    command = b"AUTHENTICATE " + way.mechanism.encode()
    failed = base64.b64encode(way.failed)
    if at_once:
        return _dialogue(channel, command + b" " + payload, [failed], told)
    return _dialogue(channel, command, [payload, failed], told)


def _authenticate(channel: Channel, payload: bytes, at_once: bool, told: Told) -> Status:
    if at_once:
        return _dialogue(channel, b"AUTHENTICATE PLAIN " + payload, [], told)
    return _dialogue(channel, b"AUTHENTICATE PLAIN", [payload], told)


def _login(channel: Channel, user: bytes, secret: bytes, at_once: bool, told: Told) -> Status:
    """LOGIN; an argument that cannot be quoted goes as a literal (RFC 7888 spares the waiting)."""
    pieces = [b"LOGIN"]
    for argument in (user, secret):
        if NOT_QUOTABLE.isdisjoint(argument):
            pieces[-1] += b" " + quoted(argument)
        elif at_once:
            pieces[-1] += b" {%d+}\r\n" % len(argument) + argument
        else:
            pieces[-1] += b" {%d}" % len(argument)
            pieces.append(argument)
    return _dialogue(channel, pieces[0], pieces[1:], told)


def _dialogue(channel: Channel, command: bytes, answers: Sequence[bytes], told: Told) -> Status:
    """Send a command, then one of ``answers`` whenever the server asks for more; its reply."""
    tag = channel.send(command)
    waiting = list(answers)
    while True:
        match channel.response():
            case Status(tag=found) as status if found == tag:
                return status
            case Continuation():
                # A server that asks on after all was said is told that there is no more (RFC 9051 §6.2.2).
                channel.write((waiting.pop(0) if waiting else b"*") + b"\r\n")
            case Data() | Status() as response:
                told(response)


def _not_understood(reply: Status) -> bool:
    return reply.kind == "BAD" and not reply.response_code


def _harmless(text: bytes, secret: bytes, payload: bytes) -> str:
    """A server's words, or nothing if they hold what was sent in any form."""
    words = clean(text)
    forms = (
        secret,
        payload,
        base64.b64encode(secret),
        quoted(secret) if NOT_QUOTABLE.isdisjoint(secret) else b"",
    )
    lower = words.lower()
    if any(form and (clean(form).lower() in lower or form.lower() in text.lower()) for form in forms):
        return ""
    return words


def _offered(response: Data | Status) -> list[frozenset[str]]:
    """Capabilities out of ``* CAPABILITY …`` or ``OK [CAPABILITY …]``; none from another response."""
    if isinstance(response, Status):
        words = response.argument if response.response_code == "CAPABILITY" else b""
    else:
        head = response.parts[0]
        told = isinstance(head, bytes) and head[:11].upper() == b"CAPABILITY "
        words = head[11:] if isinstance(head, bytes) and told else b""
    return [frozenset(words.decode("ascii", "replace").upper().split())] if words else []
