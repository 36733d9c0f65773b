"""Mail servers from wheels, for where Dovecot and Postfix cannot be had: pymap and aiosmtpd.

They offer IMAP with UIDPLUS, MOVE, IDLE and OBJECTID, SMTP with AUTH, 8BITMIME, SIZE and
SMTPUTF8, STARTTLS and TLS on both. Mail lives in the memory of their process.
"""

import hashlib
import json
import os
import signal
import smtplib
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from imapclient import IMAPClient
from imapclient.exceptions import LoginError

from lab.ports import LOOPBACK, Supervised, free_ports, wait_until
from lab.servers.certificates import issue
from lab.servers.tree import open_tree
from lab.servers.wheels_process import FOLDERS, Plan

PROCESS: Final = Path(__file__).with_name("wheels_process.py")
BATCH: Final = 100
"""Messages fetched at a time."""


class WheelsMail:
    """The servers from wheels, started; `lab.servers.mail.Mail` describes the rest."""

    imap_security = "tls"
    smtp_security = "starttls"

    def __init__(
        self,
        directory: Path | None,
        users: Mapping[str, str],
        domains: Sequence[str],
        *,
        message_size_limit: int = 50_000_000,
    ) -> None:
        self.kind = f"pymap {version('pymap')} and aiosmtpd {version('aiosmtpd')}"
        self._tree = open_tree("wheels", directory)
        certificate = issue(self._tree.path / "tls")
        imap, imaps, smtp, smtps = free_ports(4)
        self._plan = Plan(
            host=LOOPBACK,
            imap_port=imap,
            imaps_port=imaps,
            smtp_port=smtp,
            smtps_port=smtps,
            chain_file=str(certificate.chain_file),
            key_file=str(certificate.key_file),
            users_file=str(self._tree.path / "users.json"),
            domains=list(domains),
            size_limit=message_size_limit,
        )
        self.imap_host = self.smtp_host = LOOPBACK
        self.imap_port, self.imap_starttls_port = imaps, imap
        self.smtp_port, self.smtp_tls_port = smtp, smtps
        self.ca_file = certificate.ca_file
        self._users: dict[str, str | None] = {address.lower(): word for address, word in users.items()}
        self._clients: dict[str, Any] = {}
        self._write_users()
        plan_file = self._tree.path / "plan.json"
        plan_file.write_text(json.dumps(asdict(self._plan)))
        log = self._tree.path / "wheels.log"
        # -P: the script's own folder must not shadow other modules.
        self._process = Supervised([sys.executable, "-P", str(PROCESS), str(plan_file)], log=log)
        try:
            self._process.wait_ready(lambda: "ready" in log.read_text(errors="replace").splitlines(), 30)
        except BaseException:
            self.stop()
            raise

    def add_user(self, address: str, password: str) -> None:
        """Let ``address`` in and take its mail, from now on."""
        self._users[address.lower()] = password
        self._write_users()
        os.kill(self._process.pid, signal.SIGHUP)
        wait_until(lambda: self._may_log_in(address), 10, f"{address} known to pymap")

    def add_gone(self, address: str) -> None:
        """aiosmtpd takes its mail, and writes the bounce."""
        self._users[address.lower()] = None
        self._write_users()
        os.kill(self._process.pid, signal.SIGHUP)
        wait_until(lambda: self._takes_mail_for(address), 10, f"{address} known to aiosmtpd")

    def deliver(self, address: str, data: bytes, folder: str = "INBOX") -> None:
        """APPEND the message."""
        client = self._client(address)
        if folder.upper() != "INBOX" and folder not in FOLDERS and not client.folder_exists(folder):
            client.create_folder(folder)
        client.append(folder, data)

    def stored(self, address: str, folder: str = "INBOX") -> list[str]:
        """Digests of what FETCH gives, in order of UID."""
        client = self._client(address)
        client.select_folder(folder, readonly=True)
        uids = client.search("ALL")
        digests = []
        for start in range(0, len(uids), BATCH):
            fetched = client.fetch(uids[start : start + BATCH], ["BODY.PEEK[]"])
            digests += [hashlib.sha256(fetched[uid][b"BODY[]"]).hexdigest() for uid in sorted(fetched)]
        return digests

    def processes(self) -> list[int]:
        """Ids of the living processes of both servers."""
        return self._process.members()

    def stop(self) -> None:
        """End the process, and the mail with it."""
        for client in self._clients.values():
            client.shutdown()
        self._clients.clear()
        self._process.stop()
        self._tree.remove()

    def _write_users(self) -> None:
        path = Path(self._plan.users_file)
        path.touch(mode=0o600)
        path.write_text(json.dumps(self._users))

    def _client(self, address: str) -> Any:
        address = address.lower()
        if address not in self._clients:
            self._clients[address] = self._connect(address)
        return self._clients[address]

    def _connect(self, address: str) -> Any:
        """IMAPClient has no types of its own."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        client: Any = IMAPClient(self.imap_host, self.imap_port, ssl=True, ssl_context=context, timeout=60)
        # imaplib writes a literal and its line end apart, which Nagle and a late ACK make 40 ms.
        client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.login(address, self._users[address])
        return client

    def _may_log_in(self, address: str) -> bool:
        try:
            self._connect(address.lower()).logout()
        except LoginError:
            return False
        return True

    def _takes_mail_for(self, address: str) -> bool:
        with smtplib.SMTP(self.smtp_host, self.smtp_port, timeout=10) as client:
            client.ehlo()
            client.mail("")
            return client.rcpt(address)[0] == 250
