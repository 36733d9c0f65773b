"""The process behind `lab.servers.wheels`: pymap and aiosmtpd in one event loop.

    python wheels_process.py PLAN.json

The plan holds the four ports, the certificate, the domains, and the name of the file of users,
which is read again at SIGHUP. Mail is kept in memory, byte for byte as it came. A user without a
password is gone: mail for them is accepted, and comes back as a bounce.
"""

import asyncio
import json
import signal
import ssl
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from proxyprotocol.sock import SocketInfoLocal
from pymap.backend.dict import Config, Identity, Login
from pymap.imap import IMAPServer
from pymap.parsing.message import AppendMessage
from pymap.user import UserMetadata
from pysasl.hashing import Cleartext

FOLDERS = ("Sent", "Drafts", "Trash", "Junk", "Archive")

BOUNCE = """\
From: Mail Delivery System <MAILER-DAEMON@lab.example.net>
To: {sender}
Subject: Undelivered Mail Returned to Sender
Date: {date}
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=bounce

--bounce
Content-Type: text/plain

Your message could not be delivered to {address}: there is no such mailbox any more.

--bounce
Content-Type: message/delivery-status

Reporting-MTA: dns; lab.example.net

Final-Recipient: rfc822; {address}
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <{address}> User unknown

--bounce
Content-Type: text/rfc822-headers

""".replace("\n", "\r\n")
"""A delivery report as RFC 3464 has it; the returned header follows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the process is told."""

    host: str
    imap_port: int
    imaps_port: int
    smtp_port: int
    smtps_port: int
    chain_file: str
    key_file: str
    users_file: str
    domains: list[str]
    size_limit: int


class Mailboxes:
    """Users and their mail, shared by both protocols."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._passwords: dict[str, str] = {}
        self._gone: set[str] = set()
        self.config = self._new_config(tls_enabled=True)
        self.config_within_tls = self._new_config(tls_enabled=False)
        self.config_within_tls.set_cache = self.config.set_cache
        self.login = Login(self.config)

    def _new_config(self, *, tls_enabled: bool) -> Config:
        arguments = Namespace(passlib_cfg=None, proxy_protocol=None)
        return Config(
            arguments,
            demo_data=False,
            demo_user="",
            demo_password="",
            host=self._plan.host,
            port=self._plan.imap_port,
            tls_enabled=tls_enabled,
            cert_file=self._plan.chain_file,
            key_file=self._plan.key_file,
            hash_context=Cleartext(),
            reject_dnsbl=False,
            invalid_user_sleep=0.0,
        )

    async def read_users(self) -> None:
        """Take over the file of users; whoever is new gets the usual folders."""
        text = await asyncio.to_thread(Path(self._plan.users_file).read_text)
        wanted: dict[str, str | None] = json.loads(text)
        self._gone = {name for name, password in wanted.items() if password is None}
        for name, password in wanted.items():
            if password is None:
                continue
            new = name not in self._passwords
            identity = self._identity(name)
            self.login.users_dict[name] = UserMetadata(self.config, name, password=password)
            self._passwords[name] = password
            if new:
                async with identity.new_session() as session:
                    for folder in FOLDERS:
                        await session.create_mailbox(folder)
                        await session.subscribe(folder)

    def knows(self, name: str) -> bool:
        return name.lower() in self._passwords

    def lost(self, name: str) -> bool:
        return name.lower() in self._gone

    def accepts(self, name: str, password: str) -> bool:
        return self.knows(name) and self._passwords[name.lower()] == password

    async def deliver(self, name: str, data: bytes) -> None:
        """Put a message into the user's INBOX."""
        async with self._identity(name.lower()).new_session() as session:
            await session.append_messages("INBOX", [AppendMessage(data)])

    def _identity(self, name: str) -> Identity:
        return Identity(name, self.login, None, frozenset())


class Delivery:
    """What aiosmtpd asks of its handler: local recipients only, then into the mailboxes."""

    def __init__(self, mailboxes: Mailboxes, domains: list[str]) -> None:
        self._mailboxes = mailboxes
        self._domains = {domain.lower() for domain in domains}

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Answer one RCPT TO."""
        if address.rpartition("@")[2].lower() not in self._domains:
            return "554 5.7.1 Relay access denied"
        if not self._mailboxes.knows(address) and not self._mailboxes.lost(address):
            return "550 5.1.1 User unknown"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Deliver what came after DATA, with a trace header (RFC 5321 §4.4)."""
        content = envelope.content
        data = content if isinstance(content, bytes) else (content or "").encode()
        trace = (
            f"Return-Path: <{envelope.mail_from or ''}>\r\nReceived: by lab.example.net; {formatdate()}\r\n"
        )
        for address in dict.fromkeys(recipient.lower() for recipient in envelope.rcpt_tos):
            if self._mailboxes.lost(address):
                await self._bounce(envelope.mail_from or "", address, data)
            else:
                await self._mailboxes.deliver(address, trace.encode() + data)
        return "250 2.0.0 Ok: delivered"

    async def _bounce(self, sender: str, address: str, data: bytes) -> None:
        """Return a message to who sent it, if that is one of ours; no sender, no bounce (RFC 5321 §6.1)."""
        if self._mailboxes.knows(sender):
            head = data.partition(b"\r\n\r\n")[0]
            report = BOUNCE.format(sender=sender, address=address, date=formatdate())
            await self._mailboxes.deliver(sender, report.encode() + head + b"\r\n\r\n--bounce--\r\n")


async def serve(plan: Plan) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    mailboxes = Mailboxes(plan)
    mailboxes.config.apply_context()
    await mailboxes.read_users()

    within_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    within_tls.load_cert_chain(plan.chain_file, plan.key_file)

    def smtp(tls: ssl.SSLContext | None) -> Callable[[], SMTP]:
        def authenticate(
            server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
        ) -> AuthResult:
            if isinstance(data, LoginPassword) and mailboxes.accepts(
                data.login.decode(), data.password.decode()
            ):
                return AuthResult(success=True)
            return AuthResult(success=False, handled=False)

        return lambda: SMTP(
            Delivery(mailboxes, plan.domains),
            data_size_limit=plan.size_limit,
            enable_SMTPUTF8=True,
            hostname="lab.example.net",
            tls_context=tls,
            authenticator=authenticate,
            auth_require_tls=False,
            loop=loop,
        )

    def imap(config: Config) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        server = IMAPServer(mailboxes.login, config)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server(reader, writer, SocketInfoLocal(writer))

        return connected

    servers = [
        await asyncio.start_server(imap(mailboxes.config), plan.host, plan.imap_port),
        await asyncio.start_server(
            imap(mailboxes.config_within_tls), plan.host, plan.imaps_port, ssl=within_tls
        ),
        await loop.create_server(smtp(within_tls), plan.host, plan.smtp_port),
        await loop.create_server(smtp(None), plan.host, plan.smtps_port, ssl=within_tls),
    ]
    reading: set[asyncio.Task[None]] = set()
    ending = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, lambda: reading.add(loop.create_task(mailboxes.read_users())))
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    print("ready", flush=True)
    await ending.wait()
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(serve(Plan(**json.loads(Path(sys.argv[1]).read_text()))))
