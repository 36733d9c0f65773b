"""What `initial_sync` and `big_mailbox` share: one folder from nothing, by our processes and by mbsync."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imapclient import IMAPClient
from sqlalchemy import Connection, create_engine, text

from config.settings import Settings
from lab import apt
from lab.servers.dovecot import Dovecot
from lab.world import Ports, add_mailbox, add_provider
from schema import migrations
from tasks.runtime import Runtime
from tasks.secrets import new_key_line
from worker.stack import Postgres, Valkey

USER, PASSWORD = "anna@bench.example", "bench-password"
FIRST = 1000
PATIENCE = 1200.0
WAL = text("SELECT pg_current_wal_lsn() - '0/0'")


@dataclass(frozen=True, slots=True)
class Ours:
    """One run of ours: seconds until all was stored, and until `FIRST` messages were; the worker's peak
    of memory in MB; bytes of the database after it, and of WAL that it wrote."""

    seconds: float
    first: float
    peak_mb: float
    stored: int
    wal: int


@dataclass(frozen=True, slots=True)
class World:
    """A Dovecot with mail in one INBOX, a durable Postgres, a Valkey, a directory for the peer."""

    dovecot: Dovecot
    postgres: Postgres
    broker: str
    home: Path
    count: int
    size: int

    def ours(self, number: int) -> Ours:
        """Sync it with a new database, from the mailbox's row on."""
        name = f"bench_{number}"
        with database(self.postgres, name) as url, service(url, self.broker) as (runtime, worker):
            provider = add_provider(runtime, Ports(imap=self.dovecot.imap_port))
            time.sleep(4)  # worker and beat are up: a mailbox is added to a service that runs
            began = time.perf_counter()
            add_mailbox(runtime, provider, USER, PASSWORD)
            with create_engine(url).connect() as look:
                wal = look.execute(WAL).scalar_one()
                look.rollback()
                first = _until(look, FIRST, began)
                seconds = _until(look, self.count, began)
                stored = look.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
                wal = look.execute(WAL).scalar_one() - wal
            return Ours(seconds, first, _peak_mb(worker), stored, int(wal))

    def peer(self) -> float:
        """Seconds of mbsync into an empty Maildir."""
        directory = self.home / "peer"
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "mail").mkdir(parents=True)
        config = directory / "mbsyncrc"
        config.write_text(MBSYNC.format(port=self.dovecot.imap_port, directory=directory))
        began = time.perf_counter()
        subprocess.run(["mbsync", "-q", "-c", str(config), "bench"], check=True, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
        stored = sum(1 for part in ("new", "cur") for _ in (directory / "mail/INBOX" / part).iterdir())
        if stored != self.count:
            raise SystemExit(f"mbsync stored {stored} of {self.count} messages")
        return seconds


@contextmanager
def world(mails: Iterable[bytes]) -> Iterator[World]:
    """Servers with ``mails`` in the INBOX, indexed."""
    apt.ensure("isync")
    with ExitStack() as opened:
        home = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="mailwright-bench-")))
        dovecot = opened.enter_context(Dovecot())
        dovecot.add_user(USER, PASSWORD)
        count = size = 0
        for raw in mails:
            count, size = count + 1, size + len(raw)
            dovecot.deliver(USER, raw, received=1_600_000_000)
        with IMAPClient("127.0.0.1", dovecot.imap_port, ssl=False, timeout=600) as client:
            client.login(USER, PASSWORD)
            client.select_folder("INBOX")
            for start in range(1, count + 1, 5000):
                client.fetch(f"{start}:{start + 4999}", ["RFC822.SIZE"])
        postgres, valkey = Postgres(home / "postgres"), Valkey(home / "valkey")
        for server in (postgres, valkey):
            opened.callback(server.discard)
            opened.callback(server.stop)
            server.start()
        yield World(dovecot, postgres, valkey.url, home, count, size)


def alternate(where: World, runs: int) -> tuple[list[Ours], list[float]]:
    """Alternating runs of ours and mbsync, told as they come."""
    ours: list[Ours] = []
    peer: list[float] = []
    for number in range(runs):
        ours.append(where.ours(number))
        peer.append(where.peer())
        print(
            f"run {number + 1}: ours {where.count / ours[-1].seconds:,.0f}/s, "
            f"mbsync {where.count / peer[-1]:,.0f}/s",
            flush=True,
        )
    return ours, peer


def result(
    name: str, where: World, ours: Sequence[Ours], peer: Sequence[float], growth: Sequence[Any]
) -> dict[str, Any]:
    """The keys of a result line that both have."""
    ratio = statistics.median(theirs / mine.seconds for mine, theirs in zip(ours, peer, strict=True))
    return {
        "name": name,
        "ours": round(where.count / statistics.median(run.seconds for run in ours), 1),
        "peer": round(where.count / statistics.median(peer), 1),
        "ratio": round(ratio, 2),
        "unit": "messages/s",
        "first_1000_s": round(statistics.median(run.first for run in ours), 2),
        "peak_mb": round(max(run.peak_mb for run in ours), 1),
        "stored_bytes_per_message": ours[-1].stored // where.count,
        "wal_bytes_per_message": ours[-1].wal // where.count,
        "growth": growth,
        "setup": {
            "messages": where.count,
            "mean_bytes": where.size // where.count,
            "runs": len(ours),
            "peer": "mbsync, FSync yes",
            "server": f"Dovecot {where.dovecot.version}",
            "postgres": "fsync on, synchronous_commit on",
            "cores": os.cpu_count(),
        },
    }


MBSYNC = """IMAPAccount bench
Host 127.0.0.1
Port {port}
User anna@bench.example
Pass bench-password
SSLType None
AuthMechs LOGIN

IMAPStore far
Account bench

MaildirStore near
Path {directory}/mail/
Inbox {directory}/mail/INBOX
SubFolders Verbatim

Channel bench
Far :far:
Near :near:
Patterns INBOX
Create Near
Sync Pull
SyncState *
"""


@contextmanager
def database(postgres: Postgres, name: str) -> Iterator[str]:
    """A new database, gone afterwards; its URL."""
    postgres.ensure_database(name)
    url = postgres.url(name)
    engine = create_engine(url)
    migrations.upgrade(engine)
    engine.dispose()
    try:
        yield url
    finally:
        admin = create_engine(postgres.url("postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            connection.execute(text("CHECKPOINT"))  # what this run wrote is not written in the next
        admin.dispose()


@contextmanager
def service(url: str, broker: str, **settings: str) -> Iterator[tuple[Runtime, subprocess.Popen[bytes]]]:
    """Our processes, as they are started in production; the worker's is given."""
    values = {"DATABASE_URL": url, "BROKER_URL": broker, "KEY_RING": new_key_line(), "EVENT_SINKS": "redis"}
    values |= settings
    environment = os.environ | {f"MAILWRIGHT_{key}": value for key, value in values.items()}
    program = str(Path(sys.executable).with_name("mailwright"))
    runtime = Runtime.open(Settings.model_validate({key.lower(): value for key, value in values.items()}))
    processes = [
        subprocess.Popen(
            [program, name], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        for name in ("worker", "beat", "relay")
    ]
    try:
        yield runtime, processes[0]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
        runtime.close()


def _until(look: Connection, wanted: int, began: float) -> float:
    """Seconds until so many messages are committed with their bytes."""
    while True:
        stored = look.execute(text("SELECT count(*) FROM mailwright.raw_messages")).scalar_one()
        look.rollback()
        taken = time.perf_counter() - began
        if stored >= wanted:
            return taken
        if taken > PATIENCE:
            raise SystemExit(f"only {stored} of {wanted} messages were stored in {PATIENCE:g} s")
        time.sleep(0.05 if wanted - stored < 20_000 else 0.5)


def _peak_mb(process: subprocess.Popen[bytes]) -> float:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
