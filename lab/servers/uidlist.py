"""What Dovecot wrote beside the files of a Maildir: the UID of each message, and its flags.

dovecot-uidlist    3 V1700000000 N8 G1f…        UIDVALIDITY, next UID
                   7 :1700000000.M1P2Q3.lab     UID, name of the file without its flags
dovecot-keywords   0 $Forwarded                 the letter a in a file's name
cur/1700000000.M1P2Q3.lab,S=12:2,Sa             \\Seen $Forwarded
"""

import re
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
