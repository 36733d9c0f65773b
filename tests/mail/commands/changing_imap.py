"""`OddImap` whose messages can be changed, and that hangs up or refuses when it is."""

import re

from lab.servers.imap_faults import _Gone, _name, _wanted
from tests.mail.sync.odd_imap import OddImap, _OddDialogue

FULL = b"IMAP4rev1 SASL-IR AUTH=PLAIN UNSELECT UIDPLUS MOVE"
WITHOUT_MOVE = b"IMAP4rev1 SASL-IR AUTH=PLAIN UNSELECT UIDPLUS"


class ChangingImap(OddImap):
    """Set its attributes at any time. ``lost``: commands that are carried out and then answered by
    hanging up. ``no``: UIDs of which a command that names them is answered NO. ``copyuid``: whether it
    tells where copies went. Keep a message above those that are moved: UIDs are given from the highest."""

    def __init__(self, *args: object, **named: object) -> None:
        super().__init__(*args, **named)
        self.lost: set[str] = set()
        self.no: set[int] = set()
        self.answer_no = b"NO [CANNOT] not this one"
        self.copyuid = True

    @property
    def dialogue(self) -> type[_OddDialogue]:
        """What speaks with one client."""
        return _ChangingDialogue

    def words(self, folder: bytes, uid: int) -> set[bytes]:
        """A message's flags."""
        return set(self.flags.get((folder, uid), b"").split())


class _ChangingDialogue(_OddDialogue):
    server: ChangingImap

    def _answer(self, tag: bytes, name: str, rest: bytes) -> None:
        if name not in {"STORE", "COPY", "MOVE", "EXPUNGE"} or not rest.upper().startswith(b"UID "):
            super()._answer(tag, name, rest)
            return
        server = self.server
        server.before(name, rest)
        held = server.folders[self.folder]
        wanted = sorted(_wanted(rest.split()[2], max(held, default=0)) & set(held))
        if server.no & set(wanted):
            self._send(tag + b" " + server.answer_no + b"\r\n")
            return
        with server._lock:
            code = self._change(name, rest, wanted)
        if name in server.lost:
            raise _Gone
        if name == "MOVE" and code:
            self._send(b"* OK " + code + b" moved\r\n")
            code = b""
        self._send(tag + b" OK " + (code + b" " if code else b"") + b"done\r\n")

    def _change(self, name: str, rest: bytes, wanted: list[int]) -> bytes:
        server, here = self.server, self.folder
        held = server.folders[here]
        if name == "STORE":
            flags = set(re.findall(rb"\\\w+", rest))
            for uid in wanted:
                old = server.words(here, uid)
                left = old | flags if b"+FLAGS" in rest else old - flags
                server.flags[here, uid] = b" ".join(sorted(left))
            return b""
        if name == "EXPUNGE":
            for uid in wanted:
                if b"\\Deleted" in server.words(here, uid):
                    del held[uid]
            return b""
        target = _name(rest.split(maxsplit=2)[2])
        told = []
        for uid in wanted:
            new = max(server.folders[target], default=0) + 1
            server.folders[target][new] = held[uid]
            server.flags[target, new] = server.flags.get((here, uid), b"")
            told.append(new)
            if name == "MOVE":
                del held[uid]
        if not server.copyuid or not wanted:
            return b""
        olds, news = (b",".join(b"%d" % uid for uid in uids) for uids in (wanted, told))
        return b"[COPYUID %d %s %s]" % (self._uidvalidity(target), olds, news)
