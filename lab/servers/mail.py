"""What any pair of mail servers of the lab offers, whatever it is made of."""

from pathlib import Path
from typing import Protocol


class Mail(Protocol):
    """An IMAP and an SMTP server, started, sharing their users.

    ``kind`` says which ("Dovecot 2.3.19 and Postfix 3.7.11"). ``imap_security`` and ``smtp_security``
    are ``tls`` or ``starttls`` and belong to the ports; the certificate is valid for the hosts given
    and for ``localhost``, by the authority in ``ca_file`` (PEM). Every user has INBOX, Sent, Drafts,
    Trash, Junk and Archive, and logs in by address.
    """

    kind: str
    imap_host: str
    imap_port: int
    imap_security: str
    smtp_host: str
    smtp_port: int
    smtp_security: str
    ca_file: Path

    def add_user(self, address: str, password: str) -> None:
        """Let ``address`` in and take its mail, from now on."""

    def add_gone(self, address: str) -> None:
        """Accept mail for ``address`` from now on, and return it: its mailbox is gone (RFC 3464)."""

    def deliver(self, address: str, data: bytes, folder: str = "INBOX") -> None:
        """Put a message into a folder, which is made if need be."""

    def stored(self, address: str, folder: str = "INBOX") -> list[str]:
        """SHA-256 (hexadecimal) of each message of a folder as the IMAP server serves it, oldest first.

        Read beside the product: from the files where there are files.
        """

    def processes(self) -> list[int]:
        """Ids of the living processes of both servers."""

    def stop(self) -> None:
        """End both servers and delete all they had; safe to call twice."""
