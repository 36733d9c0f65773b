"""What `nothing_changed` and `few_changed` share: many mailboxes on a Dovecot, and workers that poll them."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imapclient import IMAPClient
from sqlalchemy import Engine, create_engine, text

from config.settings import Settings
from lab.corpus import generate
from lab.servers.dovecot import Dovecot, DovecotOptions
from lab.world import Ports, add_mailbox, add_provider
from schema import migrations
from tasks.runtime import Runtime
from tasks.secrets import new_key_line
from worker.stack import Postgres, Valkey

PASSWORD = "bench-password"
WORKERS = 2
PATIENCE = 900.0
TICK = os.sysconf("SC_CLK_TCK")


def users(count: int) -> list[str]:
    """Addresses of the bench."""
    return [f"user-{number:05}@bench.example" for number in range(count)]


def folders(count: int) -> list[str]:
    """Folders of each mailbox, INBOX among them."""
    return ["INBOX", *(f"Folder-{number:02}" for number in range(1, count))]


@contextmanager
def mail_server(mailboxes: int, folder_count: int, messages: int = 3) -> Iterator[Dovecot]:
    """A Dovecot with small mail in every folder, indexed."""
    source = generate(10_000_000, seed=3, mean_size=2_000)
    with Dovecot(options=DovecotOptions(imap_client_limit=50)) as dovecot:
        for user in users(mailboxes):
            dovecot.add_user(user, PASSWORD)
            for folder in folders(folder_count):
                for _ in range(messages):
                    dovecot.deliver(user, next(source), folder)
        each(mailboxes, lambda user: poll_by_peer(dovecot, user, folder_count))
        yield dovecot


def each(mailboxes: int, work: Callable[[str], None]) -> float:
    """Do ``work`` for every user in 8 threads; seconds."""
    began = time.perf_counter()
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(work, users(mailboxes)))
    return time.perf_counter() - began


def poll_by_peer(dovecot: Dovecot, user: str, folder_count: int) -> None:
    """One poll as one writes it with IMAPClient: connect, log in, STATUS of each folder, log out."""
    with IMAPClient("127.0.0.1", dovecot.imap_port, ssl=False) as client:
        client.login(user, PASSWORD)
        for folder in folders(folder_count):
            client.folder_status(folder, ["MESSAGES", "UIDNEXT", "UIDVALIDITY", "HIGHESTMODSEQ"])


@dataclass
class Service:
    """Our processes, polling without a pause, and their database."""

    engine: Engine
    workers: Sequence[subprocess.Popen[bytes]]
    mailboxes: int

    def one(self, statement: str, **given: object) -> Any:
        """The first value of the first row."""
        with self.engine.begin() as connection:
            return connection.execute(text(statement), given).scalar_one()

    def wait(self, statement: str, **given: object) -> None:
        """Until the statement is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.one(statement, **given):
            if time.monotonic() > deadline:
                raise SystemExit(f"not within {PATIENCE:g} s: {statement}")
            time.sleep(0.02)

    def polls(self) -> int:
        """Claims so far, of all mailboxes."""
        return int(self.one("SELECT sum(lease_token) FROM mailwright.schedule"))

    def cpu(self) -> float:
        """Seconds of processor that the workers used."""
        used = 0
        for worker in self.workers:
            fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
            used += int(fields[11]) + int(fields[12])
        return used / TICK

    def peak_mb(self) -> float:
        """Most memory any worker had, MB."""
        lines = [Path(f"/proc/{worker.pid}/status").read_text().splitlines() for worker in self.workers]
        return max(int(line.split()[1]) for told in lines for line in told if line.startswith("VmHWM")) / 1024


@contextmanager
def service(dovecot: Dovecot, mailboxes: int, folder_count: int) -> Iterator[Service]:
    """Postgres (durable), Valkey, two workers, beat and relay; every mailbox synced, its session resting."""
    with ExitStack() as opened:
        home = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="mailwright-bench-")))
        postgres, valkey = Postgres(home / "postgres"), Valkey(home / "valkey")
        for server in (postgres, valkey):
            opened.callback(server.discard)
            server.start()
        postgres.ensure_database("bench")
        engine = create_engine(postgres.url("bench"))
        opened.callback(engine.dispose)
        migrations.upgrade(engine)
        values = {
            "DATABASE_URL": postgres.url("bench"),
            "BROKER_URL": valkey.url,
            "KEY_RING": new_key_line(),
            "EVENT_SINKS": "redis",
            "HELD_SESSIONS": str(mailboxes),
            "CONCURRENCY": "4",
            "POLL_MIN_SECONDS": "0.01",
            "POLL_MAX_SECONDS": "0.01",
        }
        environment = os.environ | {f"MAILWRIGHT_{key}": value for key, value in values.items()}
        runtime = Runtime.open(Settings.model_validate({k.lower(): v for k, v in values.items()}))
        opened.callback(runtime.close)
        provider = add_provider(
            runtime, Ports(imap=dovecot.imap_port), connections_per_host=10_000, connections_per_account=3
        )
        for user in users(mailboxes):
            add_mailbox(runtime, provider, user, PASSWORD, folders=folders(folder_count))
        processes = [
            opened.enter_context(_process(name, environment))
            for name in (*["worker"] * WORKERS, "beat", "relay")
        ]
        running = Service(engine, processes[:WORKERS], mailboxes)
        running.wait(
            "SELECT bool_and(last_synced_at IS NOT NULL AND lease_token > 3) FROM mailwright.schedule"
        )
        yield running


@contextmanager
def _process(name: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    program = str(Path(sys.executable).with_name("mailwright"))
    process = subprocess.Popen(
        [program, name], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)
