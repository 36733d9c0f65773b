"""An IMAP server that misbehaves on request.

It speaks enough IMAP4rev1 for login, LIST, EXAMINE, STATUS, FETCH, APPEND, SEARCH by header and so on,
over threads on loopback. ``faults`` may be exchanged while it runs; a new command looks at the new ones.
"""

import re
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from lab.ports import LOOPBACK
from lab.servers.certificates import Certificate

PASSWORD: Final = "secret"
DATE: Final = b"17-Jul-2026 02:44:25 +0200"


class Stage(StrEnum):
    """Where a fault strikes: before the answer to that command, or inside a FETCH."""

    GREETING = "greeting"
    CAPABILITY = "capability"
    STARTTLS = "starttls"
    LOGIN = "login"
    LIST = "list"
    SELECT = "select"
    STATUS = "status"
    FETCH = "fetch"
    LITERAL = "literal"
    AFTER_LITERAL = "after literal"
    APPEND = "append"
    SEARCH = "search"
    NOOP = "noop"


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong; the default is nothing.

    ``reply`` answers a stage's command with this status instead (``b"NO [UNAVAILABLE] later"``).
    ``refuse_longer`` is the length of a command in bytes past which it is BAD.
    """

    drip: frozenset[Stage] = frozenset()
    drip_seconds: float = 0.2
    hang: frozenset[Stage] = frozenset()
    close: frozenset[Stage] = frozenset()
    bye: frozenset[Stage] = frozenset()
    bye_text: bytes = b"Server shutting down."
    reply: Mapping[Stage, bytes] = field(default_factory=dict)
    capabilities: bytes = b"IMAP4rev1 SASL-IR AUTH=PLAIN UNSELECT"
    strip_starttls: bool = False
    inject_after_starttls: bytes = b""
    size_lie: int | None = None
    silent: frozenset[int] = frozenset()
    without_body: frozenset[int] = frozenset()
    nil_body: frozenset[int] = frozenset()
    quoted_body: bool = False
    literal8: bool = False
    junk: bool = False
    odd_order: bool = False
    unsolicited: bool = False
    modseq_anyway: bool = False
    no_uidnext: bool = False
    refuse_longer: int | None = None
    refuse_folders: frozenset[bytes] = frozenset()
    append_then_close: bool = False


class _Gone(Exception):
    pass


class FaultyImap:
    """A server on ``port`` of loopback; a context manager. Any login is taken with ``password``.

    ``messages`` are the bytes in INBOX, with UIDs from 1, or a mapping of folders to such. With a
    ``certificate`` it offers STARTTLS, or with ``tls`` speaks TLS at once.
    """

    def __init__(
        self,
        messages: Sequence[bytes] | Mapping[bytes, Sequence[bytes]] = (),
        faults: Faults | None = None,
        *,
        password: str = PASSWORD,
        certificate: Certificate | None = None,
        tls: bool = False,
        port: int = 0,
    ) -> None:
        folders = messages if isinstance(messages, Mapping) else {b"INBOX": messages}
        self.folders = {name: dict(enumerate(held, start=1)) for name, held in folders.items()}
        self.faults = faults or Faults()
        self.password = password
        self.uidvalidity = 7
        self.commands: Counter[str] = Counter()
        self.lines: list[bytes] = []
        self.sessions = 0
        self.open_sessions = 0
        self.most_open = 0
        self.ended = threading.Event()
        self.tls = tls
        self.context: ssl.SSLContext | None = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate.chain_file, certificate.key_file)
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server((LOOPBACK, port), backlog=128)
        self.host = LOOPBACK
        self.port: int = self._listener.getsockname()[1]

    def add(self, content: bytes, folder: bytes = b"INBOX") -> int:
        """Put a message into a folder; its UID."""
        with self._lock:
            held = self.folders.setdefault(folder, {})
            uid = max(held, default=0) + 1
            held[uid] = content
            return uid

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            held = list(self._sockets)
        for sock in held:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self.ended.is_set():
            try:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                continue  # the client went at once, or this is the end
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.add(sock)
            self.sessions += 1
            self.open_sessions += 1
            self.most_open = max(self.most_open, self.open_sessions)
        dialogue = _Dialogue(self, sock)
        try:
            dialogue.run()
        except (_Gone, OSError, ssl.SSLError, ValueError):
            pass  # the client went, or a fault ended it
        finally:
            with self._lock:
                self._sockets.discard(sock)
                self.open_sessions -= 1
            with suppress(OSError):
                dialogue.sock.close()


class _Dialogue:
    """One client."""

    def __init__(self, server: FaultyImap, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.folder = b"INBOX"
        self._in = b""
        self._drip = False

    @property
    def faults(self) -> Faults:
        return self.server.faults

    def run(self) -> None:
        if self.server.tls and self.server.context:
            self.sock = self.server.context.wrap_socket(self.sock, server_side=True)
        self._strike(Stage.GREETING)
        self._send(self.faults.reply.get(Stage.GREETING, b"* OK ready") + b"\r\n")
        while True:
            line = self._command()
            tag, _, rest = line.partition(b" ")
            words = rest.split()
            name = words[1 if words[0].upper() == b"UID" else 0].upper().decode("ascii", "replace")
            self.server.commands[name] += 1
            self.server.lines.append(line)
            self._drip = False
            if self.faults.refuse_longer is not None and len(line) > self.faults.refuse_longer:
                self._send(tag + b" BAD Command line too long\r\n")
                continue
            stage = _STAGES.get(name)
            if stage:
                self._strike(stage)
                if stage in self.faults.reply:
                    self._send(tag + b" " + self.faults.reply[stage] + b"\r\n")
                    continue
            self._noise()
            self._answer(tag, name, rest)

    def _answer(self, tag: bytes, name: str, rest: bytes) -> None:
        match name:
            case "CAPABILITY":
                self._send(b"* CAPABILITY " + self._capabilities() + b"\r\n")
            case "STARTTLS" if self.server.context:
                self._send(tag + b" OK begin TLS\r\n" + self.faults.inject_after_starttls)
                self.sock = self.server.context.wrap_socket(self.sock, server_side=True)
                return
            case "LOGIN" | "AUTHENTICATE":
                if not self._login(name, rest):
                    self._send(tag + b" NO [AUTHENTICATIONFAILED] Invalid credentials\r\n")
                    return
            case "LIST":
                for folder in self.server.folders:
                    self._send(b'* LIST (\\HasNoChildren) "/" "' + folder + b'"\r\n')
            case "EXAMINE" | "SELECT":
                if not self._select(tag, rest):
                    return
            case "STATUS":
                if not self._status(tag, rest):
                    return
            case "FETCH":
                self._fetch(rest)
            case "APPEND":
                folder = _name(rest)
                uid = self.server.add(rest.partition(b"\r\n")[2], folder)
                if self.faults.append_then_close:
                    raise _Gone
                self._send(b"%s OK [APPENDUID %d %d] done\r\n" % (tag, self.server.uidvalidity, uid))
                return
            case "SEARCH":
                wanted = (re.findall(rb'"([^"]*)"', rest) or rest.split())[-1]
                found = [uid for uid, content in self._held() if wanted in content]
                self._send(b"* SEARCH" + b"".join(b" %d" % uid for uid in found) + b"\r\n")
            case "CREATE":
                self.server.folders.setdefault(_name(rest), {})
            case "LOGOUT":
                self._send(b"* BYE bye\r\n" + tag + b" OK out\r\n")
                raise _Gone
        self._send(tag + b" OK done\r\n")

    def _login(self, name: str, rest: bytes) -> bool:
        import base64

        if name == "LOGIN":
            return rest.endswith(
                (b' "%s"' % self.server.password.encode(), b"\r\n" + self.server.password.encode())
            )
        words = rest.split()
        if len(words) < 3:
            self._send(b"+ \r\n")
            words.append(self._line())
        return base64.b64decode(words[2]).endswith(b"\0" + self.server.password.encode())

    def _select(self, tag: bytes, rest: bytes) -> bool:
        self.folder = _name(rest)
        if self.folder not in self.server.folders or self.folder in self.faults.refuse_folders:
            self._send(tag + b" NO [NONEXISTENT] no such folder\r\n")
            return False
        held = self._held()
        self._send(b"* %d EXISTS\r\n* OK [UIDVALIDITY %d] ok\r\n" % (len(held), self.server.uidvalidity))
        if not self.faults.no_uidnext:
            self._send(b"* OK [UIDNEXT %d] next\r\n" % (max((uid for uid, _ in held), default=0) + 1))
        if self.faults.modseq_anyway or b"CONDSTORE" in self.faults.capabilities:
            self._send(b"* OK [HIGHESTMODSEQ 99]\r\n")
        return True

    def _status(self, tag: bytes, rest: bytes) -> bool:
        folder = _name(rest)
        if folder not in self.server.folders or folder in self.faults.refuse_folders:
            self._send(tag + b" NO no such folder\r\n")
            return False
        held = self.server.folders[folder]
        numbers = b"MESSAGES %d UIDVALIDITY %d" % (len(held), self.server.uidvalidity)
        if not self.faults.no_uidnext:
            numbers += b" UIDNEXT %d" % (max(held, default=0) + 1)
        self._send(b'* STATUS "' + folder + b'" (' + numbers + b")\r\n")
        return True

    def _fetch(self, rest: bytes) -> None:
        held = self._held()
        wanted = _wanted(rest.split()[2], max((uid for uid, _ in held), default=0))
        for number, (uid, content) in enumerate(held, start=1):
            if uid in wanted and uid not in self.faults.silent:
                self._message(number, uid, content, rest)
                self._noise()

    def _message(self, number: int, uid: int, content: bytes, asked: bytes) -> None:
        size = len(content) if self.faults.size_lie is None else self.faults.size_lie
        items = [b"UID %d" % uid, b"FLAGS (\\Seen \\Recent)"]
        items += [b'INTERNALDATE "%s"' % DATE, b"RFC822.SIZE %d" % size] if b"RFC822.SIZE" in asked else []
        items += [b"MODSEQ (%d)" % (uid + 10)] if b"MODSEQ" in asked else []
        whole = b"BODY.PEEK[" in asked and uid not in self.faults.without_body
        if b"BODY.PEEK[HEADER]" in asked:
            content = content.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        name = b"BODY[HEADER]" if b"BODY.PEEK[HEADER]" in asked else b"BODY[]"
        head, tail = b"* %d FETCH (" % number, b")\r\n"
        if not whole:
            self._send(head + b" ".join(items) + tail)
        elif uid in self.faults.nil_body or self.faults.quoted_body:
            value = b"NIL" if uid in self.faults.nil_body else _quoted(content)
            self._send(head + b" ".join([name + b" " + value, *items]) + tail)
        else:
            before, after = ([], [*items]) if self.faults.odd_order else (items, [])
            mark = b"~{%d}\r\n" if self.faults.literal8 else b"{%d}\r\n"
            self._send(head + b" ".join([*before, name + b" " + mark % len(content)]))
            self._send(content[: len(content) // 2])
            self._strike(Stage.LITERAL)
            self._send(content[len(content) // 2 :])
            self._strike(Stage.AFTER_LITERAL)
            self._send(b"".join(b" " + item for item in after) + tail)

    def _noise(self) -> None:
        if self.faults.unsolicited:
            self._send(
                b"* 9 EXISTS\r\n* 1 RECENT\r\n* OK [HIGHESTMODSEQ 3]\r\n* 1 FETCH (FLAGS (\\Seen))\r\n"
                b"* OK [ALERT] Your {3}\r\n* 4 EXPUNGE\r\n* FLAGS (\\Seen)\r\n"
                b"* 1 FETCH (UID 1 FLAGS (\\Flagged))\r\n* VANISHED 4\r\n"
                b'* 2 FETCH (BODYSTRUCTURE ("text" "plain" NIL NIL NIL "8bit" 12 -1))\r\n'
            )
        if self.faults.junk:
            self._send(
                b"\xff\xfe\x80 junk {12}\r\n\xe9\xe8\r\n* X-\xff (\xfe\r\n* \x80\r\n* 1 FETCH (FLAGS \xff\r\n"
            )

    def _capabilities(self) -> bytes:
        offers = self.server.context and not self.faults.strip_starttls
        starttls = b" STARTTLS" if offers and not isinstance(self.sock, ssl.SSLSocket) else b""
        return self.faults.capabilities + starttls

    def _held(self) -> list[tuple[int, bytes]]:
        with self.server._lock:
            return sorted(self.server.folders.get(self.folder, {}).items())

    def _strike(self, stage: Stage) -> None:
        if stage in self.faults.hang:
            self.server.ended.wait()
            raise _Gone
        if stage in self.faults.bye:
            self._send(b"* BYE " + self.faults.bye_text + b"\r\n")
            raise _Gone
        if stage in self.faults.close:
            raise _Gone
        self._drip = stage in self.faults.drip

    def _send(self, data: bytes) -> None:
        if not self._drip:
            self.sock.sendall(data)
            return
        for byte in data:
            self.sock.sendall(bytes([byte]))
            if self.server.ended.wait(self.faults.drip_seconds):
                raise _Gone

    def _command(self) -> bytes:
        """A command with its literals in it."""
        line = self._line()
        while match := re.search(rb"\{(\d+)(\+?)\}\Z", line):
            if not match[2]:
                self._send(b"+ go on\r\n")
            line += b"\r\n" + self._exactly(int(match[1])) + self._line()
        return line

    def _line(self) -> bytes:
        while b"\r\n" not in self._in:
            self._receive()
        line, _, self._in = self._in.partition(b"\r\n")
        return line

    def _exactly(self, count: int) -> bytes:
        while len(self._in) < count:
            self._receive()
        data, self._in = self._in[:count], self._in[count:]
        return data

    def _receive(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise _Gone
        self._in += data


_STAGES: Final = {stage.name: stage for stage in Stage} | {
    "EXAMINE": Stage.SELECT,
    "AUTHENTICATE": Stage.LOGIN,
}


def _name(rest: bytes) -> bytes:
    found = re.match(rb'\S+ (?:"((?:[^"\\]|\\.)*)"|(\S+))', rest)
    if found is None:
        raise _Gone
    return re.sub(rb"\\(.)", rb"\1", found[1]) if found[1] is not None else found[2]


def _wanted(words: bytes, last: int) -> set[int]:
    """RFC 9051 §9: ``*`` is the last message, and 9:5 is 5:9, so ``n:*`` always has the last."""
    found: set[int] = set()
    for word in words.split(b","):
        ends = [last if end == b"*" else min(int(end), last + 1) for end in word.split(b":")]
        found.update(range(min(ends), max(ends) + 1))
    return found


def _quoted(content: bytes) -> bytes:
    return b'"' + content.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\r\n", b" ") + b'"'
