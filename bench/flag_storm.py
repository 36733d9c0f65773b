"""10,000 flag changes in a folder of 100,000 messages, made by another client: how soon they are stored.

Ours is the whole path. When the other client's STORE has been answered, a sync is asked for as
``mailwright sync`` asks for it; beat's tick, a Celery worker's claim, the session that rests, the folder
opened, every change stored with its event in Postgres with fsync and synchronous_commit on. The clock ends
when the mailbox is given back as synced; then all changes and all events are counted. ``ours`` is with
CONDSTORE alone, ``qresync_s`` with QRESYNC too, as Dovecot offers it.

The peer is mbsync with its default ``FSync yes`` and a Maildir that holds the same folder. It is the peer of
the other benches of the sync, it stores what it finds as we do, and no other known program of its kind finds
flags faster; it asks for the flags of all messages each time.

Dovecot keeps the folder as mdbox: as a Maildir it would read the whole directory for everyone who opens it
after a change (0.2 s of 100,000 messages), and half of what is measured would be that.

The changes are spread evenly over the folder. ``growth``: the same 10,000 changes in folders of three sizes,
so that what is left of the folder's size shows; ``by_changes``: three numbers of changes in the largest.
Words for the full-text search, which are indexed a minute after a first sync, wait until all is over.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
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
from lab.servers.maildir import Maildir
from lab.world import Ports, add_mailbox, add_provider
from tasks import schedule
from tasks.runtime import Runtime
from worker.stack import Postgres, Valkey

MARK: Final = "# of this bench\n"
PATIENCE: Final = 600.0
MDBOX: Final = {
    "2.3": "mail_location = mdbox:%h/mdbox\n",
    "2.4": "mail_driver = mdbox\nmail_path = %{home}/mdbox\n",
}
WITHOUT_QRESYNC: Final = {
    "2.3": (
        "protocol imap {\n  imap_capability = IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE UIDPLUS MOVE "
        "UNSELECT SPECIAL-USE LIST-EXTENDED LIST-STATUS ESEARCH CONDSTORE\n}\n"
    ),
    "2.4": "protocol imap {\n  imap_capability {\n    QRESYNC = no\n  }\n}\n",
}
"""What Dovecot is told, by the language of its configuration."""
FLAGGED: Final = "SELECT count(*) FROM mailwright.places WHERE '\\Flagged' = ANY(flags)"
LATER: Final = "UPDATE mailwright.search_backlog SET due_at = due_at + interval '1 hour'"
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
        draft = Maildir(self.dovecot.tree / "home" / "draft", owner(self.dovecot.tree / "home"))
        for raw in small(count - self.count, seed=count):
            draft.deliver(raw, received=1_600_000_000)
        self.dovecot.admin("import", "-u", USER, f"maildir:{draft.root}", "", "all")
        shutil.rmtree(draft.root)
        self.count = count
        self.sync()
        while self.one("SELECT count(*) FROM mailwright.places") < count:
            time.sleep(0.5)
            self.sync()
        with self.runtime.db.begin() as session:
            session.execute(text(LATER))

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

    def typical(self, changes: int) -> float:
        """The median of four storms: flags are set and taken away, twice."""
        taken = []
        for _ in range(4):
            self.storm(changes)
            taken.append(self.ours())
        return round(statistics.median(taken), 3)

    def offer(self, *, qresync: bool) -> None:
        """Let Dovecot offer QRESYNC or not."""
        self.dovecot.stop()
        configure(self.dovecot, MDBOX, *([] if qresync else [WITHOUT_QRESYNC]))
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


def configure(dovecot: Dovecot, *settings: Mapping[str, str]) -> None:
    """Write its configuration anew, with these settings at the end."""
    language = ".".join(dovecot.version.split(".")[:2])
    ours, _, _ = dovecot.config_file.read_text().partition(MARK)
    dovecot.config_file.write_text(ours + MARK + "".join(each[language] for each in settings))


def owner(path: Path) -> tuple[int, int]:
    """Whose files are there."""
    there = path.stat()
    return there.st_uid, there.st_gid


@contextmanager
def world() -> Iterator[World]:
    """All of it, with an empty INBOX."""
    apt.ensure("isync")
    with ExitStack() as opened:
        home = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="mailwright-bench-")))
        dovecot = Dovecot()
        configure(dovecot, MDBOX, WITHOUT_QRESYNC)
        opened.enter_context(dovecot).add_user(USER, PASSWORD)
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
            growth.append([where.count, where.typical(chosen.changes)])
            print(f"{where.count} messages: {growth[-1][1]:.2f} s", flush=True)
        by_changes = [
            [changes, where.typical(changes)]
            for changes in (chosen.changes // 100, chosen.changes // 10, chosen.changes)
        ]
        where.peer(fsync=False)
        taken: dict[str, list[float]] = {"condstore": [], "qresync": [], "peer": []}
        for number in range(chosen.runs):
            for offered in ("condstore", "qresync"):
                where.offer(qresync=offered == "qresync")
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
            "server": f"Dovecot {where.dovecot.version}, mdbox, on loopback, plain",
            "postgres": "fsync on, synchronous_commit on",
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
