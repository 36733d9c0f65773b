"""What happens on the mail server in a round: arrivals, moves, expunges, flags, a new UIDVALIDITY."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from imapclient import IMAPClient

from lab.crash.books import assert_announced_once, assert_stored_once, at_rest
from lab.crash.stack import READERS, CrashStack
from tasks import schedule

LEAST_ARRIVALS: Final = 30
MOST_ARRIVALS: Final = 70
"""New messages of one mailbox in one round."""
RENUMBERED: Final = 0.25
"""Part of the rounds in which one folder gets a new UIDVALIDITY."""


@dataclass
class Traffic:
    """What happens on the mail server, and how much of it there was."""

    stack: CrashStack
    random: Random
    source: Iterator[bytes]
    received: int = 0
    deleted: int = 0
    validity: int = 2_000_000_000
    twice: bytes = field(default=b"", repr=False)

    def round(self) -> int:
        """Old mail is moved, expunged and flagged, new mail comes to two folders. Returns how much came."""
        letters = {address: self._letters() for address in READERS}
        for address in READERS:
            self._reorder(address)
        if self.random.random() < RENUMBERED:
            self.validity += 1
            self.stack.dovecot.set_uidvalidity(self.random.choice(READERS), "INBOX", self.validity)
        for address, arrivals in letters.items():
            for folder, raw in arrivals:
                self.stack.dovecot.deliver(address, raw, folder)
        came = sum(len(arrivals) for arrivals in letters.values())
        self.received += came
        with self.stack.runtime.db.begin() as session:
            schedule.ask(session, self.boxes)
        return came

    def _letters(self) -> list[tuple[str, bytes]]:
        """Mail for the inbox, and for the archive, where each round one mail comes twice and one that
        other rounds know comes again. (From another folder, the same bytes would be an IMAP COPY.)"""
        wanted = self.random.randint(LEAST_ARRIVALS, MOST_ARRIVALS)
        letters = [next(self.source) for _ in range(wanted)]
        archived = wanted // 4
        twice = self.twice or letters[0]
        self.twice = letters[0]
        return [
            *(("Archive", raw) for raw in (*letters[:archived], letters[0], twice)),
            *(("INBOX", raw) for raw in letters[archived:]),
        ]

    def _reorder(self, address: str) -> None:
        with IMAPClient("127.0.0.1", self.stack.dovecot.imap_port, ssl=False) as program:
            program.login(address, self.stack.passwords[address])
            program.select_folder("INBOX")
            old = program.search()
            chosen = self.random.sample(old, min(12, len(old)))
            moved, gone, read = chosen[:5], chosen[5:8], chosen[8:]
            if moved:
                program.move(moved, "Archive")
            if read:
                program.add_flags(read, [b"\\Seen"])
            if gone:
                program.add_flags(gone, [b"\\Deleted"])
                program.expunge(gone)
                self.deleted += len(gone)

    def newest(self) -> int:
        """The inner id of the newest message row."""
        return int(self.stack.one("SELECT coalesce(max(id), 0) FROM mailwright.messages"))

    def stored_since(self, newest: int) -> int:
        """How many messages of the readers were committed after the one with id ``newest``."""
        return int(
            self.stack.one(
                "SELECT count(*) FROM mailwright.messages WHERE id > :newest AND mailbox_id = ANY(:boxes)",
                newest=newest,
                boxes=self.boxes,
            )
        )

    @property
    def boxes(self) -> Sequence[int]:
        """Inner ids of the readers."""
        return [self.stack.mailboxes[address] for address in READERS]

    def settle(self) -> None:
        """Wait until all is stored, then hold every file, row and event against each other."""
        self.stack.wait(lambda: at_rest(self.stack, READERS), "every message stored")
        assert_stored_once(self.stack, READERS)
        assert_announced_once(self.stack, READERS, self.received, self.deleted)
