"""One client's dialogue with the recording server (RFC 5321), line by line."""

import asyncio
import base64
import binascii
import hashlib
import re
import time
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Final

from lab.servers.recording_values import Accepted

if TYPE_CHECKING:
    from lab.servers.recording import RecordingSmtp

ADDRESS: Final = re.compile(r"(?:FROM|TO):\s*<([^>]*)>\s*(.*)", re.IGNORECASE)
HEADER: Final = rb"(?im)^%s:[ \t]*((?:[^\r\n]|\r\n[ \t])*)"


class Ending(Exception):
    """The dialogue is over."""


class RecordingSession:
    """The state of one connection; ``run`` returns or raises `Ending` when it ends.

    ``rude`` tells that the server hangs up without a word.
    """

    def __init__(
        self,
        server: "RecordingSmtp",
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        within_tls: bool,
    ) -> None:
        self.rude = False
        self._server = server
        self._number = number
        self._reader = reader
        self._writer = writer
        self._within_tls = within_tls
        self._sender: str | None = None
        self._recipients: list[str] = []

    async def run(self) -> None:
        """Greet, then answer commands until the client leaves."""
        await self._say("220 lab.example.net ESMTP recording")
        while True:
            line = (await self._line()).decode("utf-8", "replace").rstrip("\r\n")
            verb, _, rest = line.partition(" ")
            await self._answer(verb.upper(), rest)

    async def _answer(self, verb: str, rest: str) -> None:
        match verb:
            case "EHLO":
                self._reset()
                await self._say(*self._abilities())
            case "HELO" | "NOOP" | "RSET":
                if verb != "NOOP":
                    self._reset()
                await self._say("250 2.0.0 ok")
            case "AUTH":
                await self._auth(rest)
            case "STARTTLS":
                await self._start_tls()
            case "MAIL":
                await self._mail(rest)
            case "RCPT":
                await self._rcpt(rest)
            case "DATA":
                await self._data()
            case "QUIT":
                await self._say("221 2.0.0 bye")
                raise Ending
            case _:
                await self._say("500 5.5.2 what?")

    def _abilities(self) -> list[str]:
        offers = ["PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"]
        offers += [
            f"SIZE {self._server.behaviour.size_limit}",
            f"AUTH {' '.join(self._server.behaviour.mechanisms)}",
        ]
        if self._server.context is not None and not self._within_tls:
            offers.append("STARTTLS")
        return ["250-lab.example.net", *(f"250-{offer}" for offer in offers), "250 HELP"]

    async def _auth(self, rest: str) -> None:
        mechanism, _, first = rest.partition(" ")
        if mechanism.upper() not in self._server.behaviour.mechanisms:
            await self._say("504 5.5.4 not offered")
            return
        if not first:
            await self._say("334 ")
            first = (await self._line()).decode("ascii", "replace").strip()
        if mechanism.upper() != "PLAIN":
            await self._bearer(mechanism.upper(), first)
            return
        try:
            _, login, password = base64.b64decode(first, validate=True).decode().split("\0")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            await self._say("501 5.5.2 not PLAIN")
            return
        known = self._server.behaviour.passwords
        good = known is None or known.get(login) == password
        await self._say("235 2.7.0 welcome" if good else "535 5.7.8 wrong login or password")

    async def _bearer(self, mechanism: str, first: str) -> None:
        """OAUTHBEARER (RFC 7628 §3.2) and XOAUTH2: a refusal is a challenge that wants an answer."""
        said = base64.b64decode(first).decode()
        form = {
            "OAUTHBEARER": r"n,a=([^,\x01]*),\x01host=[^\x01]+\x01port=\d+\x01auth=Bearer (\S+)\x01\x01",
            "XOAUTH2": r"user=([^\x01]+)\x01auth=Bearer (\S+)\x01\x01",
        }[mechanism]
        match = re.fullmatch(form, said)
        login = match[1] if match else None
        if login and mechanism == "OAUTHBEARER":
            login = login.replace("=2C", ",").replace("=3D", "=")
        if match and self._server.behaviour.whose(match[2]) == login:
            await self._say("235 2.7.0 welcome")
            return
        await self._say("334 " + base64.b64encode(b'{"status":"invalid_token"}').decode())
        answer = (await self._line()).strip()
        right = base64.b64encode(b"\1") if mechanism == "OAUTHBEARER" else b""
        await self._say("535 5.7.8 token refused" if answer == right else "501 5.5.2 that is no answer")

    async def _start_tls(self) -> None:
        if self._server.context is None or self._within_tls:
            await self._say("502 5.5.1 not offered")
            return
        await self._say("220 2.0.0 go ahead")
        await self._writer.start_tls(self._server.context)
        self._within_tls = True
        self._reset()

    async def _mail(self, rest: str) -> None:
        match = ADDRESS.fullmatch(rest)
        size = re.search(r"\bSIZE=(\d+)", rest, re.IGNORECASE)
        if match is None:
            await self._say("501 5.5.4 MAIL FROM:<address>")
        elif self._sender is not None:
            await self._say("503 5.5.1 sender already specified")
        elif size and int(size[1]) > self._server.behaviour.size_limit:
            await self._say("552 5.3.4 too big")
        else:
            self._sender = match[1]
            await self._say("250 2.1.0 ok")

    async def _rcpt(self, rest: str) -> None:
        match = ADDRESS.fullmatch(rest)
        if match is None:
            await self._say("501 5.5.4 RCPT TO:<address>")
            return
        if self._sender is None:
            await self._say("503 5.5.1 MAIL first")
            return
        replies = self._server.behaviour.recipients
        reply = next(
            (text for pattern, text in replies.items() if fnmatch(match[1], pattern)), "250 2.1.5 ok"
        )
        if reply.startswith("2"):
            self._recipients.append(match[1])
        await self._say(reply)

    async def _data(self) -> None:
        if self._sender is None or not self._recipients:
            await self._say("503 5.5.1 no valid recipients")
            return
        self._server.in_data += 1
        try:
            await self._pause(self._server.behaviour.pause_before_data)
            await self._say("354 end with a dot")
            await self._finish(await self._message())
        finally:
            self._server.in_data -= 1

    async def _message(self) -> bytes:
        """The bytes up to the final dot, without dot-stuffing (RFC 5321 §4.5.2)."""
        lines: list[bytes] = []
        while (line := await self._line()) != b".\r\n" or (lines and not lines[-1].endswith(b"\r\n")):
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    async def _finish(self, data: bytes) -> None:
        """Judge, record and answer a whole message."""
        behaviour, lot = self._server.behaviour, self._server.random
        sender, recipients = self._sender or "", tuple(self._recipients)
        self._reset()
        if len(data) > behaviour.size_limit:
            await self._say("552 5.3.4 too big")
        elif re.search(rb"(?<!\r)\n", data):
            await self._say("550 5.6.11 bare line feed")
        elif not behaviour.final_reply.startswith("2"):
            await self._pause(behaviour.pause_after_dot)
            await self._say(behaviour.final_reply)
        elif lot.random() < behaviour.lose_after_dot:
            self._hang_up()
        else:
            self._record(sender, recipients, data)
            await self._pause(behaviour.pause_after_dot)
            if lot.random() < behaviour.hang_up_after_dot:
                self._hang_up()
            await self._say(behaviour.final_reply)

    def _record(self, sender: str, recipients: tuple[str, ...], data: bytes) -> None:
        head = data.partition(b"\r\n\r\n")[0]
        accepted = Accepted(
            time=time.time(),
            session=self._number,
            mail_from=sender,
            recipients=recipients,
            sha256=hashlib.sha256(data).hexdigest(),
            size=len(data),
            message_id=_value(head, b"Message-ID"),
            attempt=_value(head, b"X-Mailwright-Attempt"),
        )
        self._server.record(accepted, data)

    def _hang_up(self) -> None:
        self.rude = True
        raise Ending

    def _reset(self) -> None:
        self._sender = None
        self._recipients = []

    async def _pause(self, span: tuple[float, float]) -> None:
        if span[1] > 0:
            await asyncio.sleep(self._server.random.uniform(*span))

    async def _line(self) -> bytes:
        line = await self._reader.readline()
        if not line.endswith(b"\n"):  # the client went away in mid-line
            raise Ending
        return line

    async def _say(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())
        await self._writer.drain()


def _value(head: bytes, name: bytes) -> str:
    found = re.search(HEADER % re.escape(name), head)
    return re.sub(rb"\r\n[ \t]", b" ", found[1]).decode("utf-8", "replace").strip() if found else ""
