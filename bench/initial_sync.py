"""The first sync of a mailbox: 10,000 messages of mean 26 KB, beside mbsync.

Ours is the whole path: beat's tick, a Celery worker's claim, IMAP from Dovecot on loopback, every message
read, rows and raw bytes committed in Postgres with fsync and synchronous_commit on. The peer is
``mbsync`` with its default ``FSync yes`` into a Maildir. Both start from empty, in alternating runs;
the clock runs from the mailbox's row (mbsync: its start) to the last message stored.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import create_engine, text

from config.settings import Settings
from lab import apt
from lab.corpus import generate
from lab.servers.dovecot import Dovecot
from lab.world import Ports, add_mailbox, add_provider
from schema import migrations
from tasks.runtime import Runtime
from tasks.secrets import new_key_line
from worker.stack import Postgres, Valkey

USER, PASSWORD = "anna@bench.example", "bench-password"


def run_ours(postgres: Postgres, broker: str, dovecot: Dovecot, count: int, number: int) -> float:
    """Seconds of one run of ours."""
    name = f"bench_{number}"
    postgres.ensure_database(name)
    url = postgres.url(name)
    engine = create_engine(url)
    migrations.upgrade(engine)
    values = {"DATABASE_URL": url, "BROKER_URL": broker, "KEY_RING": new_key_line(), "EVENT_SINKS": "redis"}
    environment = os.environ | {f"MAILWRIGHT_{key}": value for key, value in values.items()}
    program = str(Path(sys.executable).with_name("mailwright"))
    settings = Settings.model_validate({key.lower(): value for key, value in values.items()})
    runtime = Runtime.open(settings)
    processes = [
        subprocess.Popen(
            [program, name], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        for name in ("worker", "beat", "relay")
    ]
    try:
        provider = add_provider(runtime, Ports(imap=dovecot.imap_port))
        time.sleep(4)  # the worker and beat are up; an idle service is what a mailbox is added to
        began = time.perf_counter()
        add_mailbox(runtime, provider, USER, PASSWORD)
        while True:
            with engine.connect() as connection:
                stored = connection.execute(text("SELECT count(*) FROM mailwright.raw_messages")).scalar_one()
            if stored >= count:
                return time.perf_counter() - began
            if time.perf_counter() - began > 600:
                raise SystemExit(f"only {stored} of {count} messages were stored in 600 s")
            time.sleep(0.05)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
        runtime.close()
        engine.dispose()
        admin = create_engine(postgres.url("postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


def run_peer(dovecot: Dovecot, directory: Path, count: int) -> float:
    """Seconds of one run of mbsync."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / "mail").mkdir()
    config = directory / "mbsyncrc"
    config.write_text(
        f"""IMAPAccount bench
Host 127.0.0.1
Port {dovecot.imap_port}
User {USER}
Pass {PASSWORD}
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
    )
    began = time.perf_counter()
    subprocess.run(["mbsync", "-q", "-c", str(config), "bench"], check=True)
    seconds = time.perf_counter() - began
    stored = sum(1 for part in ("new", "cur") for _ in (directory / "mail/INBOX" / part).iterdir())
    if stored != count:
        raise SystemExit(f"mbsync stored {stored} of {count} messages")
    return seconds


def main() -> None:
    """Run, and print one JSON line last."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--runs", type=int, default=5)
    chosen = options.parse_args()
    apt.ensure("isync")
    ours: list[float] = []
    peer: list[float] = []
    with tempfile.TemporaryDirectory(prefix="mailwright-bench-") as scratch:
        home = Path(scratch)
        postgres, valkey = Postgres(home / "postgres"), Valkey(home / "valkey")
        with Dovecot() as dovecot:
            dovecot.add_user(USER, PASSWORD)
            size = 0
            for raw in generate(chosen.count, seed=1):
                size += len(raw)
                dovecot.deliver(USER, raw, received=1_600_000_000)
            postgres.start()
            valkey.start()
            try:
                run_peer(dovecot, home / "peer", chosen.count)  # warms the server's index for both
                for number in range(chosen.runs):
                    ours.append(run_ours(postgres, valkey.url, dovecot, chosen.count, number))
                    peer.append(run_peer(dovecot, home / "peer", chosen.count))
                    print(
                        f"run {number + 1}: ours {chosen.count / ours[-1]:,.0f}/s, "
                        f"mbsync {chosen.count / peer[-1]:,.0f}/s",
                        flush=True,
                    )
            finally:
                valkey.stop()
                postgres.stop()
                valkey.discard()
                postgres.discard()
    our_rate = chosen.count / statistics.median(ours)
    peer_rate = chosen.count / statistics.median(peer)
    print(
        json.dumps(
            {
                "name": "initial_sync",
                "ours": round(our_rate, 1),
                "peer": round(peer_rate, 1),
                "ratio": round(our_rate / peer_rate, 2),
                "unit": "messages/s",
                "setup": {
                    "messages": chosen.count,
                    "mean_bytes": size // chosen.count,
                    "runs": chosen.runs,
                    "peer": "mbsync, FSync yes",
                    "server": f"Dovecot {dovecot.version}",
                    "postgres": "fsync on, synchronous_commit on",
                    "cores": os.cpu_count(),
                },
            }
        )
    )


if __name__ == "__main__":
    main()
