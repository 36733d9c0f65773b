"""10,000 flag changes in a folder of 100,000 messages, made by another client: how soon they are stored.

Ours is the whole path. When the other client's STORE has been answered, a sync is asked for as
``mailwright sync`` asks for it; beat's tick, a Celery worker's claim, the session that rests, the folder
opened, every change stored with its event in Postgres with fsync and synchronous_commit on. The clock ends
when the mailbox is given back as synced; then all changes and all events are counted. ``ours`` is with
CONDSTORE alone, ``qresync_s`` with QRESYNC too, as Dovecot offers it.

The peer is mbsync with its default ``FSync yes`` and a Maildir that holds the same folder. It is the peer of
the other benches of the sync, it stores what it finds as we do, and no other known program of its kind finds
flags faster; it asks for the flags of all messages each time.

The changes are spread evenly over the folder. ``growth``: the same 10,000 changes in folders of three sizes,
so that what is left of the folder's size shows; ``by_changes``: three numbers of changes in the largest.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from imapclient import IMAPClient
from sqlalchemy import text

from bench.first_sync import MBSYNC, PASSWORD, USER, database, service
from lab import apt
from lab.corpus import small
from lab.servers.dovecot import Dovecot
from lab.world import Ports, add_mailbox, add_provider
from tasks import schedule
from tasks.runtime import Runtime
from worker.stack import Postgres, Valkey

PATIENCE: Final = 600.0
WITHOUT_QRESYNC: Final = """
protocol imap {
  imap_capability = IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE UIDPLUS MOVE UNSELECT SPECIAL-USE \
LIST-EXTENDED LIST-STATUS ESEARCH CONDSTORE
}
"""
FLAGGED: Final = "SELECT count(*) FROM mailwright.places WHERE '\\Flagged' = ANY(flags)"
TOLD: Final = """
    SELECT (SELECT count(*) FROM mailwright.events WHERE type = 'message.flags_changed')
         + (SELECT count(*) FROM mailwright.events_pending WHERE type = 'message.flags_changed')
"""


@dataclass
class World:
    """A Dovecot with mail in one INBOX, our processes that follow it, mbsync's copy of it."""

    dovecot: Dovecot
    runtime: Runtime
    home: Path
    mailbox_id: int
    count: int = 0
    flagged: int = 0
    told: int = 0

    def grow(self, count: int) -> None:
        """Put mail into the INBOX until it holds ``count`` messages, and let ours store it."""
        for raw in small(count - self.count, seed=count):
            self.dovecot.deliver(USER, raw, received=1_600_000_000)
        self.count = count
        with self.client():
            pass  # the server has numbered them
        self.sync()
        while self.one("SELECT count(*) FROM mailwright.places") < count:
            time.sleep(0.5)
            self.sync()

    @contextmanager
    def client(self) -> Iterator[IMAPClient]:
        """The other client, with the INBOX open."""
        with IMAPClient("127.0.0.1", self.dovecot.imap_port, ssl=False, timeout=PATIENCE) as client:
            client.login(USER, PASSWORD)
            client.select_folder("INBOX")
            yield client

    def one(self, statement: str) -> int:
        """The first value of the first row."""
        with self.runtime.db.begin() as session:
            return int(session.execute(text(statement)).scalar_one())

    def storm(self, changes: int) -> None:
        """The other client sets a flag of ``changes`` messages, or takes it away from those that have it."""
        with self.client() as client:
            chosen = client.search("FLAGGED")
            change = client.remove_flags if chosen else client.add_flags
            if not chosen:
                uids = client.search()
                chosen = [uids[number * len(uids) // changes] for number in range(changes)]
            for start in range(0, len(chosen), 1000):
                change(chosen[start : start + 1000], [b"\\Flagged"], silent=True)
        self.flagged = len(chosen) - self.flagged
        self.told += len(chosen)

    def sync(self) -> float:
        """Ask for a sync; seconds until it is done."""
        began = time.perf_counter()
        with self.runtime.db.begin() as session:
            since, _ = schedule.ask(session, [self.mailbox_id])
        while True:
            with self.runtime.db.begin() as session:
                settled = schedule.settled(session, [self.mailbox_id], since)
            taken = time.perf_counter() - began
            if self.mailbox_id in settled:
                if settled[self.mailbox_id] is not None:
                    raise SystemExit(settled[self.mailbox_id])
                return taken
            if taken > PATIENCE:
                raise SystemExit(f"not synced within {PATIENCE:g} s")
            time.sleep(0.02)

    def ours(self) -> float:
        """Seconds in which the storm is stored; every flag and every event is counted."""
        seconds = self.sync()
        found, events = self.one(FLAGGED), self.one(TOLD)
        if (found, events) != (self.flagged, self.told):
            raise SystemExit(f"{found} of {self.flagged} flags are stored, {events} of {self.told} events")
        return seconds

    def both(self, changes: int) -> tuple[float, float]:
        """Seconds for flags that are set, and for the same taken away."""
        self.storm(changes)
        there = self.ours()
        self.storm(changes)
        return there, self.ours()

    def offer(self, extra: str) -> None:
        """Let Dovecot offer less, or all again."""
        self.dovecot.stop()
        kept = self.dovecot.config_file.read_text().replace(WITHOUT_QRESYNC, "")
        self.dovecot.config_file.write_text(kept + extra)
        self.dovecot.start()
        self.sync()

    def peer(self, fsync: bool = True) -> float:
        """Seconds of mbsync; the flags that its files have are counted."""
        directory = self.home / "peer"
        (directory / "mail").mkdir(parents=True, exist_ok=True)
        config = directory / "mbsyncrc"
        settings = MBSYNC.format(port=self.dovecot.imap_port, directory=directory)
        config.write_text(settings if fsync else f"FSync no\n\n{settings}")
        began = time.perf_counter()
        subprocess.run(["mbsync", "-q", "-c", str(config), "bench"], check=True, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        files = [name for part in ("new", "cur") for name in os.listdir(directory / "mail/INBOX" / part)]
        flagged = sum("F" in name.rpartition(":2,")[2] for name in files)
        if (len(files), flagged) != (self.count, self.flagged):
            raise SystemExit(f"mbsync has {len(files)} messages, {flagged} of {self.flagged} flagged")
        return seconds


@contextmanager
def world() -> Iterator[World]:
    """All of it, with an empty INBOX."""
    apt.ensure("isync")
    with ExitStack() as opened:
        home = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="mailwright-bench-")))
        dovecot = opened.enter_context(Dovecot())
        dovecot.add_user(USER, PASSWORD)
        postgres, valkey = Postgres(home / "postgres"), Valkey(home / "valkey")
        for server in (postgres, valkey):
            opened.callback(server.discard)
            opened.callback(server.stop)
            server.start()
        url = opened.enter_context(database(postgres, "bench"))
        seldom = {"POLL_MIN_SECONDS": "3600", "POLL_MAX_SECONDS": "3600"}
        runtime, _ = opened.enter_context(service(url, valkey.url, **seldom))
        provider = add_provider(runtime, Ports(imap=dovecot.imap_port))
        mailbox_id = add_mailbox(runtime, provider, USER, PASSWORD, folders=["INBOX"])
        yield World(dovecot, runtime, home, mailbox_id)


def main() -> None:
    """Run, and print one JSON line last."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=100_000)
    options.add_argument("--changes", type=int, default=10_000)
    options.add_argument("--runs", type=int, default=5)
    chosen = options.parse_args()
    with world() as where:
        growth = []
        for part in (4, 2, 1):
            where.grow(chosen.count // part)
            growth.append([where.count, round(statistics.median(where.both(chosen.changes)), 3)])
            print(f"{where.count} messages: {growth[-1][1]:.2f} s", flush=True)
        by_changes = [
            [changes, round(statistics.median(where.both(changes)), 3)]
            for changes in (chosen.changes // 100, chosen.changes // 10, chosen.changes)
        ]
        where.peer(fsync=False)
        taken: dict[str, list[float]] = {"condstore": [], "qresync": [], "peer": []}
        for number in range(chosen.runs):
            for offered, extra in (("condstore", WITHOUT_QRESYNC), ("qresync", "")):
                where.offer(extra)
                where.storm(chosen.changes)
                taken[offered].append(where.ours())
                taken["peer"].append(where.peer())
            print(
                f"run {number + 1}: ours {taken['condstore'][-1]:.2f} s, with QRESYNC "
                f"{taken['qresync'][-1]:.2f} s, mbsync {statistics.mean(taken['peer'][-2:]):.2f} s",
                flush=True,
            )
    beside = zip(taken["peer"][::2], taken["condstore"], strict=True)
    result = {
        "name": "flag_storm",
        "ours": round(statistics.median(taken["condstore"]), 3),
        "peer": round(statistics.median(taken["peer"]), 3),
        "ratio": round(statistics.median(theirs / mine for theirs, mine in beside), 2),
        "unit": "s",
        "qresync_s": round(statistics.median(taken["qresync"]), 3),
        "growth": growth,
        "by_changes": by_changes,
        "setup": {
            "messages": chosen.count,
            "changes": chosen.changes,
            "runs": chosen.runs,
            "workers": 1,
            "cores": os.cpu_count(),
            "peer": "mbsync, FSync yes",
            "server": f"Dovecot {where.dovecot.version} on loopback, plain",
            "postgres": "fsync on, synchronous_commit on",
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
