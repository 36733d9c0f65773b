"""A mail server to take the first steps on: two people, one message, and the command that describes it.

Runs until Ctrl-C and leaves nothing. As root it is Dovecot and Postfix (installed by apt, if missing), else
servers from wheels.
"""

import shlex
import signal
import sys
from types import FrameType
from typing import Final

from lab.servers import start_mail

PASSWORDS: Final = {"anna@example.test": "anna-first-steps", "ben@example.test": "ben-first-steps"}
MESSAGE: Final = (
    b"From: Ben <ben@example.test>\r\n"
    b"To: Anna <anna@example.test>\r\n"
    b"Subject: Welcome\r\n"
    b"Date: Mon, 05 Jan 2026 09:00:00 +0000\r\n"
    b"Message-ID: <welcome@example.test>\r\n"
    b"\r\n"
    b"This was here before mailwright came.\r\n"
)


def main() -> None:
    """Start, tell, wait."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    mail = start_mail(None, PASSWORDS, ["example.test"])
    try:
        mail.deliver("anna@example.test", MESSAGE)
        words = [
            *("mailwright", "provider", "add", "Example mail"),
            *("--imap-host", mail.imap_host, "--imap-port", str(mail.imap_port)),
            *("--imap-security", mail.imap_security),
            *("--smtp-host", mail.smtp_host, "--smtp-port", str(mail.smtp_port)),
            *("--smtp-security", mail.smtp_security),
            *("--ca", str(mail.ca_file), "--domain", "example.test"),
        ]
        people = "\n".join(f"    {address}, password {word}" for address, word in PASSWORDS.items())
        sys.stdout.write(
            f"{mail.kind}. Two people have mailboxes here:\n\n{people}\n\nDescribe it to mailwright with\n\n"
            f"    {shlex.join(words)}\n\nCtrl-C ends it.\n"
        )
        sys.stdout.flush()
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        mail.stop()


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
