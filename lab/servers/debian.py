"""Dovecot and Postfix together, behind the facade."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.servers.dovecot import Dovecot, DovecotOptions
from lab.servers.maildir import digest
from lab.servers.postfix import Postfix, PostfixOptions


class DebianMail:
    """The real servers, started; `lab.servers.mail.Mail` describes the rest. Root only."""

    imap_security = "tls"
    smtp_security = "starttls"

    def __init__(
        self,
        directory: Path | None,
        users: Mapping[str, str],
        domains: Sequence[str],
        *,
        dovecot: DovecotOptions | None = None,
        postfix: PostfixOptions | None = None,
    ) -> None:
        self.dovecot = Dovecot(directory, options=dovecot)
        try:
            self.postfix = Postfix(self.dovecot, tuple(domains), directory, options=postfix)
        except BaseException:
            self.dovecot.close()
            raise
        for address, password in users.items():
            self.add_user(address, password)
        self.kind = f"Dovecot {self.dovecot.version} and Postfix {self.postfix.version}"
        self.imap_host, self.imap_port = self.dovecot.host, self.dovecot.imaps_port
        self.smtp_host, self.smtp_port = self.postfix.host, self.postfix.smtp_port
        self.ca_file = self.dovecot.ca_file
        try:
            self.dovecot.start()
            self.postfix.start()
        except BaseException:
            self.stop()
            raise

    def add_user(self, address: str, password: str) -> None:
        """Let ``address`` in and take its mail, from now on."""
        self.dovecot.add_user(address, password)
        self.postfix.add_user(address)

    def add_gone(self, address: str) -> None:
        """Postfix knows the address and Dovecot does not, so that the bounce is Postfix's own."""
        self.postfix.add_user(address)

    def deliver(self, address: str, data: bytes, folder: str = "INBOX") -> None:
        """Write the message as a file of the user's Maildir."""
        self.dovecot.deliver(address, data, folder)

    def stored(self, address: str, folder: str = "INBOX") -> list[str]:
        """Digests of the Maildir's files, in the form that IMAP serves."""
        return [digest(path.read_bytes()) for path in self.dovecot.files(address, folder)]

    def processes(self) -> list[int]:
        """Ids of the living processes of both servers."""
        return [*self.dovecot.processes(), *self.postfix.processes()]

    def stop(self) -> None:
        """End both servers and delete their trees."""
        try:
            self.postfix.close()
        finally:
            self.dovecot.close()
