"""``kill -9`` of a worker in mid-sync: what the server has is what Postgres has, once, announced once."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pytest
from imapclient import IMAPClient

from lab.corpus import generate
from lab.crash.books import assert_announced_once, assert_positions_without_gaps, assert_stored_once, at_rest
from lab.crash.rounds import MOST_MISSES, Hit, strike, wanted_rounds
from lab.crash.stack import READERS, CrashStack

pytestmark = pytest.mark.crash

LEAST_ARRIVALS, MOST_ARRIVALS = 30, 70
"""New messages of one mailbox in one round."""
RENUMBERED = 0.25
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


def newest(stack: CrashStack) -> int:
    """The inner id of the newest message row."""
    return int(stack.one("SELECT coalesce(max(id), 0) FROM mailwright.messages"))


def test_a_worker_killed_in_mid_sync_loses_and_doubles_nothing(stack: CrashStack, seed: int) -> None:
    random = Random(seed)
    traffic = Traffic(stack, random, generate(100_000, seed=seed % 1_000_000, mean_size=5_000))
    hits: list[Hit] = []
    misses = 0
    while len(hits) < wanted_rounds():
        before = newest(stack)
        boxes = [stack.mailboxes[address] for address in READERS]
        came = traffic.round()

        def stored(before: int = before, boxes: list[int] = boxes) -> int:
            """Messages of this round that are committed."""
            return int(
                stack.one(
                    "SELECT count(*) FROM mailwright.messages "
                    "WHERE id > :before AND mailbox_id = ANY(:boxes)",
                    before=before,
                    boxes=boxes,
                )
            )

        hit = strike(stack, random, "schedule", came, stored)
        stack.wait(lambda: at_rest(stack, READERS), "every message stored")
        print(f"sync round {len(hits) + misses + 1}: {came} came, {hit}", flush=True)

        assert_stored_once(stack, READERS)
        assert_announced_once(stack, READERS, traffic.received, traffic.deleted)
        if hit is not None and hit.counts:
            hits.append(hit)
        else:
            misses += 1
            assert misses <= MOST_MISSES, "the kills do not fall into the syncs"

    assert stack.one("SELECT count(*) FROM mailwright.places WHERE stub IS NOT NULL") == 0
    assert_positions_without_gaps(stack)
