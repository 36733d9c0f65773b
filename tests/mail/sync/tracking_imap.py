"""`OddImap` that keeps MODSEQs (RFC 7162), and lies about them as servers in the field do."""

import re

from lab.servers.imap_faults import _wanted
from tests.mail.sync.odd_imap import OddImap, _OddDialogue

PLAIN = b"IMAP4rev1 SASL-IR AUTH=PLAIN UNSELECT"
CONDSTORE = PLAIN + b" CONDSTORE ENABLE"
QRESYNC = CONDSTORE + b" QRESYNC"


class TrackingImap(OddImap):
    """Change its mail by `add`, `flag` and `expunge`. Lies, to be told from the next command on:

    ``frozen``: HIGHESTMODSEQ does not grow (WorkMail). ``without_modseq``: FETCH tells none
    (SmarterMail). ``late``: changes that CHANGEDSINCE does not show yet (Gmail). ``untold``: expunges that
    VANISHED leaves out. ``undead``: UIDs that VANISHED tells though they are there. ``outdated``: UIDs whose
    old flags are told first, before those of now. ``refuse_qresync``: the answer to whatever says QRESYNC or
    VANISHED, and ``refuse_enable`` to ENABLE.
    """

    def __init__(self, *args: object, **named: object) -> None:
        super().__init__(*args, **named)
        self.highest = 10
        self.modseqs: dict[tuple[bytes, int], int] = {}
        self.gone: list[tuple[bytes, int, int]] = []
        self.frozen: int | None = None
        self.without_modseq = False
        self.late: set[int] = set()
        self.untold: set[int] = set()
        self.undead: set[int] = set()
        self.outdated: set[int] = set()
        self.refuse_qresync = b""
        self.refuse_enable = b""

    @property
    def dialogue(self) -> type[_OddDialogue]:
        """What speaks with one client."""
        return _TrackingDialogue

    def add(self, content: bytes, folder: bytes = b"INBOX") -> int:
        """Put a message into a folder; its UID."""
        uid = super().add(content, folder)
        self._grow(folder, uid)
        return uid

    def flag(self, uid: int, words: bytes, folder: bytes = b"INBOX") -> None:
        """Give a message these flags and no others."""
        self.flags[folder, uid] = words
        self._grow(folder, uid)

    def expunge(self, uid: int, folder: bytes = b"INBOX") -> None:
        """Remove a message."""
        with self._lock:
            del self.folders[folder][uid]
        self.highest += 1
        self.gone.append((folder, uid, self.highest))

    def _grow(self, folder: bytes, uid: int) -> None:
        self.highest += 1
        self.modseqs[folder, uid] = self.highest

    @property
    def told_highest(self) -> int:
        """HIGHESTMODSEQ as it is told."""
        return self.highest if self.frozen is None else self.frozen


class _TrackingDialogue(_OddDialogue):
    server: TrackingImap

    def _answer(self, tag: bytes, name: str, rest: bytes) -> None:
        server = self.server
        if name == "ENABLE":
            if server.refuse_enable:
                return self._send(tag + b" " + server.refuse_enable + b"\r\n")
            self._send(b"* ENABLED" + rest[len(b"ENABLE") :] + b"\r\n")
        if server.refuse_qresync and (b"(QRESYNC" in rest or b"VANISHED" in rest):
            return self._send(tag + b" " + server.refuse_qresync + b"\r\n")
        return super()._answer(tag, name, rest)

    def _select(self, tag: bytes, rest: bytes) -> bool:
        if not super()._select(tag, rest):
            return False
        known = re.search(rb"\(QRESYNC \((\d+) (\d+) ([\d:,]+)\)\)", rest)
        if known and int(known[1]) == self._uidvalidity(self.folder):
            self._vanished(int(known[2]))
            for number, (uid, content) in enumerate(self._held(), start=1):
                if self._is_newer(uid, int(known[2])):
                    self._message(number, uid, content, b"MODSEQ")
        return True

    def _numbers(self, folder: bytes) -> list[bytes]:
        lines = super()._numbers(folder)
        if b"CONDSTORE" in self.faults.capabilities:
            lines.append(b"OK [HIGHESTMODSEQ %d]" % self.server.told_highest)
        return lines

    def _status(self, tag: bytes, rest: bytes) -> bool:
        self.server.modseq = self.server.told_highest
        try:
            return super()._status(tag, rest)
        finally:
            self.server.modseq = None

    def _fetch(self, rest: bytes) -> None:
        since = re.search(rb"CHANGEDSINCE (\d+)( VANISHED)?", rest)
        if since is None:
            return super()._fetch(rest)
        held = self._held()
        wanted = _wanted(rest.split()[2], max((uid for uid, _ in held), default=0))
        if since[2]:
            self._vanished(int(since[1]))
        for number, (uid, content) in enumerate(held, start=1):
            if uid in wanted and self._is_newer(uid, int(since[1])):
                self._message(number, uid, content, rest)
        return None

    def _is_newer(self, uid: int, modseq: int) -> bool:
        server = self.server
        return uid not in server.late and server.modseqs.get((self.folder, uid), 1) > modseq

    def _vanished(self, modseq: int) -> None:
        server = self.server
        gone = {uid for folder, uid, at in server.gone if folder == self.folder and at > modseq}
        told = sorted(gone - server.untold | server.undead)
        if told:
            self._send(b"* VANISHED (EARLIER) " + b",".join(b"%d" % uid for uid in told) + b"\r\n")

    def _message(self, number: int, uid: int, content: bytes, asked: bytes) -> None:
        super()._message(
            number, uid, content, asked.replace(b"MODSEQ", b"") if self.server.without_modseq else asked
        )

    def _send(self, data: bytes) -> None:
        if data.startswith(b"* ") and b" FETCH (" in data and (uid := re.search(rb"UID (\d+)", data)):
            modseq = self.server.modseqs.get((self.folder, int(uid[1])), 1)
            data = re.sub(rb"MODSEQ \(\d+\)", b"MODSEQ (%d)" % modseq, data)
            if int(uid[1]) in self.server.outdated:
                super()._send(re.sub(rb"FLAGS \([^)]*\)", b"FLAGS ()", data))
        super()._send(data)
