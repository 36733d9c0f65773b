"""Mail servers for tests, benches and the demo: the real ones where they can be had.

`start_mail` is the one door for who needs *some* pair of mail servers. Who needs more takes
`lab.servers.dovecot.Dovecot`, `lab.servers.postfix.Postfix`, `lab.servers.recording.RecordingSmtp`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.apt import CannotInstall, ensure_mail_servers
from lab.servers.debian import DebianMail
from lab.servers.mail import Mail

__all__ = ["Mail", "start_mail"]


def start_mail(directory: Path | None, users: Mapping[str, str], domains: Sequence[str]) -> Mail:
    """Start an IMAP and an SMTP server that know ``users`` (address to password), local to ``domains``.

    As root: Dovecot and Postfix, installed by apt if need be; elsewhere the servers from wheels.
    Files go into ``directory`` where that serves, else into a temporary one; ``stop`` removes them.
    """
    if real_servers_possible():
        return DebianMail(directory, users, domains)
    from lab.servers.wheels import WheelsMail  # its packages are for development only

    return WheelsMail(directory, users, domains)


def real_servers_possible() -> bool:
    """Whether Dovecot and Postfix are installed, or could be just now, and may be started by us."""
    if os.geteuid() != 0:
        return False
    try:
        ensure_mail_servers()
    except CannotInstall:
        return False
    return True
