"""`FaultyImap` with faults of single messages and folders, and a hook before each answer."""

import re
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress

from lab.servers.imap_faults import DATE, FaultyImap, _Dialogue, _Gone, _name, _wanted


class OddImap(FaultyImap):
    """Set its attributes at any time; they hold from the next command on.

    ``deadly``: the server hangs up instead of giving the body of that (folder, UID). ``refused``: it
    answers a FETCH of bodies that names it with ``refusal``. ``folder_replies``: what opening a folder
    or asking its STATUS is answered; ``replies``: what commands are, by name; ``untagged``: what is told
    before that. ``object_ids``: MAILBOXIDs of folders; ``email_ids`` and ``threads``: by bytes, what a
    message is known by. ``before`` is told each command's name and arguments first.
    """

    def __init__(self, *args: object, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type]
        self.deadly: set[tuple[bytes, int]] = set()
        self.refused: set[tuple[bytes, int]] = set()
        self.refusal = b"NO cannot convert this message"
        self.folder_replies: dict[bytes, bytes] = {}
        self.replies: dict[str, bytes] = {}
        self.untagged: dict[str, bytes] = {}
        self.attributes: dict[bytes, bytes] = {}
        self.delimiter = b"/"
        self.hidden: set[bytes] = set()
        self.uidvalidities: dict[bytes, int] = {}
        self.object_ids: dict[bytes, bytes] = {}
        self.email_ids: dict[bytes, bytes] = {}
        self.threads: dict[bytes, bytes] = {}
        self.refuse_identity = False
        self.flags: dict[tuple[bytes, int], bytes] = {}
        self.dates: dict[tuple[bytes, int], bytes] = {}
        self.modseq: int | None = None
        self.refuse_modseq = False
        self.oblige_last = False
        self.asked_alone: list[int] = []
        self.before: Callable[[str, bytes], None] = lambda _name, _rest: None

    @property
    def dialogue(self) -> "type[_OddDialogue]":
        """What speaks with one client."""
        return _OddDialogue

    def _serve(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.add(sock)
            self.sessions += 1
            self.open_sessions += 1
            self.most_open = max(self.most_open, self.open_sessions)
        dialogue = self.dialogue(self, sock)
        try:
            dialogue.run()
        except (_Gone, OSError, ssl.SSLError, ValueError):
            pass
        finally:
            with self._lock:
                self._sockets.discard(sock)
                self.open_sessions -= 1
            with suppress(OSError):
                dialogue.sock.close()

    def reset(self, folder: bytes = b"INBOX", *, first: int = 1) -> None:
        """Give a folder a new UIDVALIDITY and its messages new UIDs from ``first`` on."""
        with self._lock:
            self.uidvalidities[folder] = self.uidvalidities.get(folder, self.uidvalidity) + 1
            held = [content for _, content in sorted(self.folders[folder].items())]
            self.folders[folder] = dict(enumerate(held, start=first))

    def rename(self, folder: bytes, name: bytes) -> None:
        """Give a folder another name; all that is its own goes with it."""
        with self._lock:
            self.folders[name] = self.folders.pop(folder)
            for kept in (self.uidvalidities, self.object_ids):
                if folder in kept:
                    kept[name] = kept.pop(folder)  # type: ignore[attr-defined, index]


class _OddDialogue(_Dialogue):
    server: OddImap
    asked = b""

    def _answer(self, tag: bytes, name: str, rest: bytes) -> None:
        server = self.server
        server.before(name, rest)
        self.asked = rest
        if server.refuse_identity and (b"EMAILID" in rest or b"X-GM-MSGID" in rest):
            return self._send(tag + b" BAD unknown item\r\n")
        if server.refuse_modseq and b"MODSEQ" in rest and name in {"FETCH", "STATUS"}:
            return self._send(tag + b" BAD unknown item\r\n")
        if (
            name in {"EXAMINE", "SELECT", "STATUS", "APPEND", "CREATE"}
            and _name(rest) in server.folder_replies
        ):
            return self._send(tag + b" " + server.folder_replies[_name(rest)] + b"\r\n")
        if name in server.untagged:
            self._send(b"* " + server.untagged[name] + b"\r\n")
        if name in server.replies:
            return self._send(tag + b" " + server.replies[name] + b"\r\n")
        if name == "LIST":
            for folder in server.folders:
                if folder not in server.hidden:
                    use = server.attributes.get(folder, b"\\HasNoChildren")
                    self._send(b'* LIST (%s) "%s" "%s"\r\n' % (use, server.delimiter, folder))
            return self._send(tag + b" OK done\r\n")
        if name == "FETCH" and b"BODY.PEEK[" in rest:
            wanted = _wanted(rest.split()[2], max((uid for uid, _ in self._held()), default=0))
            if len(wanted) == 1:
                server.asked_alone += wanted
            if any((self.folder, uid) in server.refused for uid in wanted):
                return self._send(tag + b" " + server.refusal + b"\r\n")
        if name == "FETCH" and server.oblige_last and (held := self._held()):
            first = min(int(number) for number in re.findall(rb"\d+", rest.split()[2]))
            if first > held[-1][0]:
                self._message(len(held), *held[-1], rest)
        return super()._answer(tag, name, rest)

    def _select(self, tag: bytes, rest: bytes) -> bool:
        self.folder = _name(rest)
        if self.folder not in self.server.folders:
            self._send(tag + b" NO [NONEXISTENT] no such folder\r\n")
            return False
        for line in self._numbers(self.folder):
            self._send(b"* " + line + b"\r\n")
        return True

    def _numbers(self, folder: bytes) -> list[bytes]:
        held = self.server.folders[folder]
        lines = [b"%d EXISTS" % len(held), b"OK [UIDVALIDITY %d] ok" % self._uidvalidity(folder)]
        if not self.faults.no_uidnext:
            lines.append(b"OK [UIDNEXT %d] next" % (max(held, default=0) + 1))
        if folder in self.server.object_ids:
            lines.append(b"OK [MAILBOXID (%s)]" % self.server.object_ids[folder])
        if self.server.modseq is not None:
            lines.append(b"OK [HIGHESTMODSEQ %d]" % self.server.modseq)
        return lines

    def _status(self, tag: bytes, rest: bytes) -> bool:
        folder = _name(rest)
        if folder not in self.server.folders:
            self._send(tag + b" NO no such folder\r\n")
            return False
        held = self.server.folders[folder]
        numbers = b"MESSAGES %d UIDVALIDITY %d" % (len(held), self._uidvalidity(folder))
        if not self.faults.no_uidnext:
            numbers += b" UIDNEXT %d" % (max(held, default=0) + 1)
        if self.server.modseq is not None and b"HIGHESTMODSEQ" in rest:
            numbers += b" HIGHESTMODSEQ %d" % self.server.modseq
        self._send(b'* STATUS "' + folder + b'" (' + numbers + b")\r\n")
        return True

    def _uidvalidity(self, folder: bytes) -> int:
        return self.server.uidvalidities.get(folder, self.server.uidvalidity)

    def _send(self, data: bytes) -> None:
        """Put a message's own flags and date into its FETCH response."""
        if data.startswith(b"* ") and b" FETCH (" in data and (uid := re.search(rb"UID (\d+)", data)):
            key = (self.folder, int(uid[1]))
            data = data.replace(b"FLAGS (\\Seen \\Recent)", b"FLAGS (%s)" % self.server.flags.get(key, b""))
            data = data.replace(b'"%s"' % DATE, b'"%s"' % self.server.dates.get(key, DATE))
            data = data.replace(uid[0], uid[0] + self._identity(int(uid[1])), 1)
        super()._send(data)

    def _identity(self, uid: int) -> bytes:
        """What is asked for and known of a message's content."""
        content = self.server.folders[self.folder].get(uid, b"")
        name, thread = self.server.email_ids.get(content), self.server.threads.get(content)
        if name is None:
            return b""
        if b"X-GM-MSGID" in self.asked:
            return b" X-GM-MSGID %s X-GM-THRID %s" % (name, thread or name)
        if b"EMAILID" in self.asked:
            return b" EMAILID (%s) THREADID %s" % (name, b"(%s)" % thread if thread else b"NIL")
        return b""

    def _message(self, number: int, uid: int, content: bytes, asked: bytes) -> None:
        if b"BODY.PEEK[" in asked and (self.folder, uid) in self.server.deadly:
            raise _Gone
        super()._message(number, uid, content, asked)


def mails(count: int, first: int = 1, size: int = 0) -> list[bytes]:
    """Small mails, each with a Message-ID of its own."""
    return [mail(number, size=size) for number in range(first, first + count)]


def mail(number: int, subject: str = "", size: int = 0) -> bytes:
    """One small mail."""
    head = f"Message-ID: <{number}@x.example>\r\nFrom: b@x.example\r\nSubject: {subject or number}\r\n\r\n"
    return head.encode() + b"Text %d\r\n" % number + b"x" * size


Folders = Mapping[bytes, list[bytes]]
