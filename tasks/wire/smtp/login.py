"""AUTH with a password: PLAIN (RFC 4616), else LOGIN (RFC 4954).

One mechanism, tried once: smtplib's own ``login`` would offer a wrong password again for every
mechanism, and ASCII only. Nothing that carries the secret is kept: a reply that echoes any of it
loses its words.
"""

import base64
import smtplib
from typing import Final

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


def authenticate(speaker: smtplib.SMTP, login: str, password: str) -> None:
    """Log in, or raise `AuthFailed`; what the socket raises passes through."""
    offered = speaker.esmtp_features.get("auth", "").upper().split()
    plain = _encoded(f"\0{login}\0{password}")
    user, secret = _encoded(login), _encoded(password)
    if "PLAIN" in offered:
        answers = [plain]
        code, text = speaker.docmd("AUTH", f"PLAIN {plain}")
    elif "LOGIN" in offered:
        answers = [user, secret]
        code, text = speaker.docmd("AUTH", "LOGIN")
    else:
        raise _not_offered(offered)
    for answer in answers:  # PLAIN: for servers that ask again for what came with the command
        if code != 334:
            break
        code, text = speaker.docmd(answer)
    if code // 100 != 2:  # 235, but the first digit is what counts (RFC 5321 §4.2.1)
        reply = without_secrets(reply_of(code, text.split(b"\n")), (password, secret, plain))
        raise _refused(reply)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _not_offered(offered: list[str]) -> AuthFailed:
    if offered:
        return AuthFailed(
            f"offers no login with a password, only {', '.join(offered)[:100]}",
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
