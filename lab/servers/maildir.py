"""Maildir++ as Dovecot keeps it, written and read from outside the server.

Files hold LF, as Dovecot stores them, or CRLF; IMAP serves both with CRLF.
"""

import hashlib
import os
import re
import time
from itertools import count
from pathlib import Path
from typing import Final

from imapclient.imap_utf7 import encode as modified_utf7

BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_NUMBERS = count(1)


def canonical(data: bytes) -> bytes:
    """The CRLF form of a message: what IMAP serves of a file with these bytes (RFC 9051 §4.3)."""
    return BARE_LF.sub(b"\r\n", data)


def digest(data: bytes) -> str:
    """SHA-256, in hexadecimal, of the message as IMAP serves it.

    A literal cannot hold NUL (RFC 9051 §9), and Dovecot serves 0x80 in its place.
    """
    return hashlib.sha256(canonical(data).replace(b"\0", b"\x80")).hexdigest()


class Maildir:
    """The mailbox of one user at ``root``; new files belong to ``owner`` (uid, gid) if given."""

    def __init__(self, root: Path, owner: tuple[int, int] | None = None) -> None:
        self.root = root
        self._owner = owner
        self._ready: set[str] = set()

    def folder(self, name: str = "INBOX") -> Path:
        """The directory of a folder; ``/`` separates levels."""
        if name.upper() == "INBOX":
            return self.root
        if "." in name:
            raise ValueError(f"Maildir++ folders cannot have a dot in their name: {name!r}")
        return self.root / ("." + modified_utf7(name).decode("ascii").replace("/", "."))

    def deliver(self, data: bytes, folder: str = "INBOX", received: float | None = None) -> Path:
        """Write one message as new mail and return its file.

        ``received`` is the time of arrival in seconds since the epoch (INTERNALDATE). The file
        appears whole, by a rename; it is not synced to the disk.
        """
        where = self._create(folder)
        served = canonical(data)
        stored = served.replace(b"\r\n", b"\n")
        if canonical(stored) != served:  # CR CR LF would lose a CR
            stored = served
        now = time.time()
        name = (
            f"{int(now)}.M{int(now % 1 * 1_000_000)}P{os.getpid()}Q{next(_NUMBERS)}.lab"
            f",S={len(stored)},W={len(served)}"
        )
        draft, place = where / "tmp" / name, where / "new" / name
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(stored)
            if self._owner:
                os.fchown(handle, *self._owner)
        if received is not None:
            os.utime(draft, (received, received))
        draft.rename(place)
        return place

    def files(self, folder: str = "INBOX") -> list[Path]:
        """The files of a folder's messages, in order of delivery; none if there is no such folder."""
        where = self.folder(folder)
        found = [
            path for part in ("new", "cur") if (where / part).is_dir() for path in (where / part).iterdir()
        ]
        return sorted(found, key=_order)

    def digests(self, folder: str = "INBOX") -> list[str]:
        """SHA-256 of each message in ``files`` as IMAP serves it."""
        return [digest(path.read_bytes()) for path in self.files(folder)]

    def folders(self) -> list[str]:
        """INBOX and every other folder there is, as the files tell."""
        from imapclient.imap_utf7 import decode

        names = sorted(path.name[1:] for path in self.root.glob(".*") if (path / "cur").is_dir())
        return ["INBOX", *(decode(name.replace(".", "/").encode("ascii")) for name in names)]

    def _create(self, folder: str) -> Path:
        where = self.folder(folder)
        if folder not in self._ready:
            for path in (self.root, where, *(where / part for part in ("cur", "new", "tmp"))):
                if not path.is_dir():
                    path.mkdir(mode=0o700)
                    if self._owner:
                        os.chown(path, *self._owner)
            self._ready.add(folder)
        return where


def _order(path: Path) -> tuple[int, int, int, str]:
    """Seconds, microseconds and number within the process, from the file's name."""
    numbers = re.match(r"(\d+)\.(?:M(\d+))?(?:P\d+)?(?:Q(\d+))?", path.name)
    if numbers is None:
        return (0, 0, 0, path.name)
    second, micro, number = numbers.groups(default="0")
    return (int(second), int(micro), int(number), path.name)
