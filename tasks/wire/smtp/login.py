"""AUTH (RFC 4954): with a password PLAIN (RFC 4616), else LOGIN; with an access token OAUTHBEARER
(RFC 7628), else XOAUTH2.

One mechanism, tried once: smtplib's own ``login`` would offer a wrong password again for every
mechanism, and ASCII only. Nothing that carries the secret is kept: a reply that echoes any of it
loses its words.
"""

import base64
import smtplib
from typing import Final

from tasks.wire.sasl import AccessToken, Secret, bearers
from tasks.wire.smtp.replies import reply_of
from tasks.wire.smtp.values import Reply

ECHO: Final = 6
"""Characters in a row of anything secret that make a reply's words unfit to keep."""


class AuthFailed(Exception):
    """No login; ``reply`` is the server's, without anything secret, or ``None`` where none was asked for."""

    def __init__(self, what: str, remedy: str, reply: Reply | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.reply = reply


def authenticate(speaker: smtplib.SMTP, login: str, secret: Secret, host: str, port: int) -> None:
    """Log in, or raise `AuthFailed`; what the socket raises passes through."""
    offered = speaker.esmtp_features.get("auth", "").upper().split()
    match secret:
        case AccessToken():
            command, answers = _token_dialogue(offered, login, secret, host, port)
            hidden: tuple[str, ...] = (secret.text, *command.split()[1:])
        case str():
            command, answers = _password_dialogue(offered, login, secret)
            hidden = (secret, _encoded(f"\0{login}\0{secret}"))
    code, text = speaker.docmd("AUTH", command)
    for answer in answers:
        if code != 334:
            break
        code, text = speaker.docmd(answer)
    if code // 100 != 2:  # 235, but the first digit is what counts (RFC 5321 §4.2.1)
        reply = without_secrets(reply_of(code, text.split(b"\n")), hidden)
        raise _refused(reply)


def _password_dialogue(offered: list[str], login: str, password: str) -> tuple[str, list[str]]:
    """What follows AUTH, and the answers to 334."""
    plain = _encoded(f"\0{login}\0{password}")
    if "PLAIN" in offered:
        return f"PLAIN {plain}", [plain]  # for servers that ask again for what came with the command
    if "LOGIN" in offered:
        return "LOGIN", [_encoded(login), _encoded(password)]
    raise _not_offered(offered, "with a password")


def _token_dialogue(
    offered: list[str], login: str, token: AccessToken, host: str, port: int
) -> tuple[str, list[str]]:
    """As above; a refusal comes as a 334 first, and its answer makes the server say so (RFC 7628 §3.2.3)."""
    try:
        ways = bearers(offered, login, token, host, port)
    except ValueError as error:
        raise AuthFailed(f"was shown no login: {error}", "Authorize the mailbox again.") from None
    if not ways:
        raise _not_offered(offered, "by OAuth 2.0")
    first = base64.b64encode(ways[0].first).decode()
    return f"{ways[0].mechanism} {first}", [base64.b64encode(ways[0].failed).decode()]


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _not_offered(offered: list[str], how: str) -> AuthFailed:
    if offered:
        return AuthFailed(
            f"offers no login {how}, only {', '.join(offered)[:100]}",
            "Choose another authentication for this provider.",
        )
    return AuthFailed(
        "offers no login",
        "Check the port; many servers offer it only after TLS: choose SSL/TLS or STARTTLS.",
    )


def _refused(reply: Reply) -> AuthFailed:
    if reply.code in (534, 535):
        return AuthFailed(
            "did not accept login and password",
            "Check both; some providers want an application password or SMTP switched on in their settings.",
            reply,
        )
    if reply.code // 100 == 4:
        return AuthFailed("cannot check the login now", "Try again later.", reply)
    return AuthFailed("refuses the login", "Its words say why; its administrator can tell more.", reply)


def without_secrets(reply: Reply, secrets: tuple[str, ...]) -> Reply:
    """``reply``, its words left out where they hold a part of a secret."""
    said = "".join(reply.text.casefold().split())
    for secret in secrets:
        hidden = "".join(secret.casefold().split())
        width = min(ECHO, len(hidden))
        if width and any(hidden[at : at + width] in said for at in range(len(hidden) - width + 1)):
            return Reply(reply.code, reply.enhanced, "")
    return reply
