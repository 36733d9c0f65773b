"""What Dovecot wrote beside the files of a Maildir: the UID of each message, and its flags.

dovecot-uidlist    3 V1700000000 N8 G1f…        UIDVALIDITY, next UID
                   7 :1700000000.M1P2Q3.lab     UID, name of the file without its flags
dovecot-keywords   0 $Forwarded                 the letter a in a file's name
cur/1700000000.M1P2Q3.lab,S=12:2,Sa             \\Seen $Forwarded
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.servers.maildir import Maildir, digest

SYSTEM: Final = {
    "D": "\\Draft",
    "F": "\\Flagged",
    "R": "\\Answered",
    "S": "\\Seen",
    "T": "\\Deleted",
}
"""Letters of a file's name that are flags of IMAP; P (passed) is none."""

LAST_UIDVALIDITY: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Filed:
    """One message as the server's files have it."""

    digest: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FiledFolder:
    """A folder as the server's files have it: messages by UID. ``unnumbered``: files that no session has
    looked at yet."""

    uidvalidity: int | None
    messages: dict[int, Filed]
    unnumbered: int


class Files:
    """Reads folders, and each file's bytes once: a message never changes under its name."""

    def __init__(self, box: Maildir) -> None:
        self.box = box
        self._digests: dict[str, str] = {}

    def folders(self) -> dict[str, FiledFolder]:
        """Every folder there is. Raises `FileNotFoundError` where one changes under the look."""
        return {name: self.folder(name) for name in self.box.folders()}

    def folder(self, name: str) -> FiledFolder:
        """One folder."""
        where = self.box.folder(name)
        uidvalidity, numbers = _numbers(where / "dovecot-uidlist")
        keywords = _keywords(where / "dovecot-keywords")
        found: dict[int, Filed] = {}
        unnumbered = 0
        for path in self.box.files(name):
            base, _, info = path.name.partition(":2,")
            if base not in numbers:
                unnumbered += 1
                continue
            if base not in self._digests:
                self._digests[base] = digest(path.read_bytes())
            found[numbers[base]] = Filed(self._digests[base], _flags(info, keywords))
        return FiledFolder(uidvalidity, found, unnumbered)


def forget_uids(folder: Path) -> None:
    """Take the UIDs of a folder, by its directory, away: its list has the next UIDVALIDITY and no message.

    Under Dovecot's own lock, and never without a list: a session that finds none writes one, with the
    UIDVALIDITY it remembers. Does nothing in a folder that no session has opened.
    """
    uidlist = folder / "dovecot-uidlist"
    with _locked(uidlist):
        with suppress(FileNotFoundError):
            _empty(uidlist)
        for path in folder.glob("dovecot.index*"):
            path.unlink(missing_ok=True)


@contextmanager
def _locked(uidlist: Path) -> Iterator[None]:
    lock = uidlist.with_name(f"{uidlist.name}.lock")
    deadline = time.monotonic() + 10
    while True:
        try:
            lock.touch(exist_ok=False)
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _empty(uidlist: Path) -> None:
    owner = uidlist.stat()
    head, _, _ = uidlist.read_text("utf-8", "surrogateescape").partition("\n")
    head = re.sub(r"\bV(\d+)", lambda found: f"V{int(found[1]) % LAST_UIDVALIDITY + 1}", head)
    draft = uidlist.with_name(f"{uidlist.name}.lab")
    draft.write_text(re.sub(r"\bN\d+", "N1", head) + "\n", "utf-8", "surrogateescape")
    draft.chmod(owner.st_mode & 0o777)
    os.chown(draft, owner.st_uid, owner.st_gid)
    draft.rename(uidlist)


def _numbers(uidlist: Path) -> tuple[int | None, dict[str, int]]:
    if not uidlist.exists():
        return None, {}
    head, *lines = uidlist.read_text("utf-8", "surrogateescape").splitlines()
    validity = re.search(r"\bV(\d+)", head)
    numbers: dict[str, int] = {}
    for line in lines:
        uid, _, name = line.partition(" ")
        numbers[name.partition(":")[2].partition(":2,")[0]] = int(uid)
    return int(validity[1]) if validity else None, numbers


def _keywords(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    pairs = (line.split(" ", 1) for line in path.read_text().splitlines())
    return {chr(ord("a") + int(number)): name for number, name in pairs}


def _flags(letters: str, keywords: dict[str, str]) -> tuple[str, ...]:
    names = SYSTEM | keywords
    return tuple(sorted(names[letter] for letter in letters.partition(",")[0] if letter in names))
