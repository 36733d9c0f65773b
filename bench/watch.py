"""Push: thousands of TLS sessions in IDLE in one process, and the way from EXISTS to the committed event.

Ours is the whole path. `mailwright watcher` holds a session on the INBOX of every mailbox; messages are put
into the maildirs of a real Dovecot, 50 a second, each into another mailbox; Dovecot says EXISTS; the
watcher wakes the sync through Celery; a worker fetches the message over a TLS session and commits rows and
event, with fsync and synchronous_commit on.

Between Dovecot and us stands a proxy, a process of its own, that ends TLS and stamps every EXISTS said to a
session in IDLE with the time at which the kernel gave it Dovecot's bytes (`lab.servers.stamping`). The clock
runs from that stamp to the moment another connection saw the event committed, looking every 5 ms; so the
proxy's own work and up to 5 ms of looking count against us. What Dovecot waits before it says EXISTS (500 ms)
is shown apart: from the file in the maildir to the stamp. Memory is resident memory with n sessions less that
with the first few, by n. The peer is the memory of IMAPClient holding the same sessions.

All mailboxes are empty at first. The first few are synced by the workers; the rows that this gave stand for
the others too, whose maildirs get the same UIDVALIDITY, so that 5,000 first syncs need not be waited for.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import create_engine, text

from config.settings import Settings
from lab.corpus import small
from lab.servers.dovecot import Dovecot, DovecotOptions
from lab.servers.stamping import StampingProxy
from lab.world import Ports, add_mailbox, add_provider
from schema import migrations
from tasks.mailboxes import refresh_provider_lanes
from tasks.runtime import Runtime
from tasks.secrets import new_key_line
from worker.stack import Postgres, Valkey

PASSWORD: Final = "bench-password"
BASE: Final = 20
"""Sessions that are there when the memory of the rest begins to count."""
PATIENCE: Final = 900.0
RECEIVED: Final = (
    "SELECT id, mailbox_id FROM mailwright.events_pending WHERE id > %s AND type = 'message.received'"
)


UIDS: Final = "3 V1700000000 N1 G%032x\n"
"""A maildir's list of UIDs with nothing in it."""
SEED: Final = """
    WITH model AS (
        SELECT mailbox_id FROM mailwright.schedule WHERE last_synced_at IS NOT NULL ORDER BY 1 LIMIT 1
    ), bare AS (
        SELECT id AS mailbox_id FROM mailwright.mailboxes WHERE state = 'paused'
    ), made AS (
        INSERT INTO mailwright.folders
            (mailbox_id, wire_name, name, delimiter, special_use, attributes, selectable, followed)
        SELECT bare.mailbox_id, f.wire_name, f.name, f.delimiter, f.special_use, f.attributes, f.selectable,
               f.followed
        FROM bare, model JOIN mailwright.folders f ON f.mailbox_id = model.mailbox_id
        RETURNING id, mailbox_id, wire_name
    ), epochs AS (
        INSERT INTO mailwright.folder_epochs
            (mailbox_id, folder_id, state, uidvalidity, uids, modseq, uidnext, messages, flags_checked_at,
             compared_at, history_below)
        SELECT made.mailbox_id, made.id, e.state, e.uidvalidity, '{}', 1, 1, 0, now(), now(), 1
        FROM model JOIN mailwright.folders f ON f.mailbox_id = model.mailbox_id
        JOIN mailwright.folder_epochs e ON e.folder_id = f.id
        JOIN made ON made.wire_name = f.wire_name
    )
    UPDATE mailwright.mailboxes m SET connected_at = now(), state = 'active'
    FROM bare WHERE m.id = bare.mailbox_id
"""
FOLLOW: Final = """
    UPDATE mailwright.schedule
    SET last_synced_at = now(), next_poll_at = now() + (0.5 + random()) * interval '1200 s'
    WHERE last_synced_at IS NULL
"""


def address(number: int) -> str:
    """The login of one mailbox."""
    return f"user{number}@bench.example"


def resident(pid: int) -> int:
    """KiB of resident memory."""
    words = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(words[0])


def users(dovecot: Dovecot, count: int) -> None:
    """Let ``count`` people in, in one go."""
    secret = PASSWORD.encode().hex()
    lines = [f"{address(number)}:{{PLAIN.HEX}}{secret}::::::" for number in range(count)]
    (dovecot.tree / "users").write_text("\n".join(lines) + "\n")
    owner = (dovecot.tree / "mail").stat()
    for number in range(count):
        inbox = dovecot.maildir(address(number)).folder("INBOX")
        made = [inbox, inbox / "cur", inbox / "new", inbox / "tmp"]
        for path in made:
            path.mkdir(mode=0o755)
        uids = inbox / "dovecot-uidlist"
        uids.write_text(UIDS % (number + 1))  # nought would be no GUID
        for path in (*made, uids):
            os.chown(path, owner.st_uid, owner.st_gid)


def hold_here(host: str, port: int, ca: Path, count: int) -> None:
    """The child: IMAPClient in IDLE, ``count`` times; prints its memory per session in KiB."""
    import ssl

    from imapclient import IMAPClient

    context = ssl.create_default_context(cafile=str(ca))

    def log_in(number: int) -> IMAPClient:
        client = IMAPClient(host, port, ssl_context=context)
        client.login(address(number), PASSWORD)
        client.select_folder("INBOX", readonly=True)
        client.idle()
        return client

    with ThreadPoolExecutor(8) as pool:
        held = list(pool.map(log_in, range(BASE)))
        before = resident(os.getpid())
        held += pool.map(log_in, range(BASE, count))
    print((resident(os.getpid()) - before) / (len(held) - BASE), flush=True)


class Bench:
    """One world: servers, workers, a watcher."""

    def __init__(
        self, home: Path, dovecot: Dovecot, proxy: StampingProxy, postgres: Postgres, broker: str
    ) -> None:
        self.home = home
        self.dovecot = dovecot
        self.proxy = proxy
        url = postgres.url()
        engine = create_engine(url)
        migrations.upgrade(engine)
        engine.dispose()
        values = {
            "DATABASE_URL": url,
            "BROKER_URL": broker,
            "KEY_RING": new_key_line(),
            "HOME": str(home),
            "POLL_MIN_SECONDS": "600",
            "POLL_MAX_SECONDS": "600",
            "WATCH_SESSIONS": "100000",
        }
        self.environment = os.environ | {f"MAILWRIGHT_{key}": value for key, value in values.items()}
        self.runtime = Runtime.open(Settings.model_validate({k.lower(): v for k, v in values.items()}))
        ports = Ports(imap=proxy.port, imap_security="tls", ca=dovecot.ca_file)
        self.provider = add_provider(self.runtime, ports, connections_per_host=1000)
        self.mailboxes: list[int] = []
        self.look = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)

    @contextmanager
    def programs(self, workers: int) -> Iterator[subprocess.Popen[bytes]]:
        """Workers, beat, and the watcher, which is given."""
        program = str(Path(sys.executable).with_name("mailwright"))
        log = (self.home / "programs.log").open("ab")
        commands = [[program, name] for name in ("worker",) * workers + ("beat", "watcher")]
        running = [subprocess.Popen(each, env=self.environment, stdout=log, stderr=log) for each in commands]
        try:
            yield running[-1]
        finally:
            for each in running:
                each.terminate()
            for each in running:
                each.wait(60)
            log.close()

    def one(self, statement: str) -> Any:
        """The first value of a question."""
        row = self.look.execute(statement.encode()).fetchone()
        assert row is not None
        return row[0]

    def grow(self, count: int) -> float:
        """Add mailboxes up to ``count``; seconds until all are synced and watched."""
        began = time.monotonic()
        for number in range(len(self.mailboxes), count):
            state = "active" if number < BASE else "paused"
            self.mailboxes.append(
                add_mailbox(
                    self.runtime, self.provider, address(number), PASSWORD, folders=["INBOX"], state=state
                )
            )
        if count > BASE:
            with self.runtime.db.begin() as session:
                session.execute(text(SEED))
                refresh_provider_lanes(session, self.provider)
                session.execute(text(FOLLOW))
        self.wait("SELECT count(connected_at) FROM mailwright.watches", count)
        self.wait(
            "SELECT count(*) FROM mailwright.schedule WHERE lease_until IS NULL AND NOT asked "
            "AND last_synced_at IS NOT NULL AND next_poll_at > now()",
            count,
        )
        return time.monotonic() - began

    def wait(self, statement: str, wanted: int) -> None:
        """Until the question's answer is ``wanted``."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.one(statement)) != wanted:
            if time.monotonic() > deadline:
                raise SystemExit(f"{found} of {wanted}: {statement}")
            time.sleep(0.2)

    def deliver(self, rate: float, seconds: float) -> tuple[list[float], list[float], list[float]]:
        """Deliver; seconds from EXISTS to the event, from the file to EXISTS, from EXISTS to the claim."""
        count = min(int(rate * seconds), len(self.mailboxes))
        step = len(self.mailboxes) / count
        chosen = [int(number * step) for number in range(count)]
        mails = list(small(count, seed=len(self.mailboxes)))
        last = self.one("SELECT coalesce(max(id), 0) FROM mailwright.events_pending")
        mark = self.proxy.mark()
        seen: dict[int, float] = {}
        delivered: dict[int, float] = {}
        done = threading.Event()

        def observe() -> None:
            with psycopg.connect(
                self.look.info.dsn, password=self.look.info.password, autocommit=True
            ) as look:
                after, recent = last, 0
                while not done.wait(0.005):
                    for row in look.execute(RECEIVED, (after,)).fetchall():
                        seen.setdefault(row[1], time.monotonic())
                        recent = max(recent, row[0])
                    after = max(after, recent - 2000)

        watching = threading.Thread(target=observe)
        watching.start()
        began = time.monotonic()
        for turn, (number, mail) in enumerate(zip(chosen, mails, strict=True)):
            time.sleep(max(0.0, began + turn / rate - time.monotonic()))
            self.dovecot.deliver(address(number), mail)
            delivered[self.mailboxes[number]] = time.monotonic()
        deadline = time.monotonic() + 60
        while len(seen) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        done.set()
        watching.join()
        stamps = self.proxy.stamps(mark)
        heard = {self.mailboxes[at]: stamps[address(at)] for at in chosen if address(at) in stamps}
        lost = [each for each in delivered if each not in seen]
        if lost:
            told = sum(1 for each in lost if each in heard)
            raise SystemExit(
                f"{len(lost)} of {count} messages were not announced within 60 s; "
                f"the server said EXISTS for {told} of them"
            )
        wall = time.time() - time.monotonic()
        claimed = {
            row[0]: row[1] - wall
            for row in self.look.execute(
                "SELECT mailbox_id, extract(epoch FROM last_started_at)::float8 FROM mailwright.schedule "
                "WHERE last_started_at IS NOT NULL"
            )
        }
        deaf = [each for each in delivered if each not in heard]
        if deaf:
            raise SystemExit(f"{len(deaf)} of {count} messages came without EXISTS")
        return (
            [seen[each] - heard[each] for each in delivered],
            [heard[each] - delivered[each] for each in delivered],
            [claimed[each] - heard[each] for each in delivered],
        )


def percentile(values: list[float], part: float) -> float:
    """In milliseconds."""
    return round(1000 * sorted(values)[min(len(values) - 1, int(part * len(values)))], 1)


def main() -> None:
    """Run, and print one JSON line last."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sessions", type=int, default=5000)
    options.add_argument("--peer-sessions", type=int, default=1000)
    options.add_argument("--rate", type=float, default=50.0)
    options.add_argument("--seconds", type=float, default=20.0)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--hold", nargs=3, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.hold is not None:
        host, port, ca = chosen.hold
        return hold_here(host, int(port), Path(ca), chosen.sessions)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    growth: list[Mapping[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="mailwright-bench-") as scratch:
        home = Path(scratch)
        home.chmod(0o755)
        postgres, valkey = Postgres(home / "postgres"), Valkey(home / "valkey")
        with (
            Dovecot(options=DovecotOptions(imap_client_limit=100)) as dovecot,
            StampingProxy(dovecot.imap_port, dovecot.certificate) as proxy,
        ):
            users(dovecot, chosen.sessions)
            dovecot.stop()
            dovecot.start()
            postgres.start()
            valkey.start()
            try:
                bench = Bench(home, dovecot, proxy, postgres, valkey.url)
                with bench.programs(chosen.workers) as watcher:
                    bench.grow(BASE)
                    before = resident(watcher.pid)
                    for part in (10, 3, 1):
                        size = max(BASE + 1, chosen.sessions // part)
                        took = bench.grow(size)
                        kib = (resident(watcher.pid) - before) / (size - BASE)
                        ours, theirs, claims = bench.deliver(chosen.rate, chosen.seconds)
                        growth.append(
                            {
                                "size": size,
                                "figure": percentile(ours, 0.99),
                                "p50_ms": percentile(ours, 0.5),
                                "claimed_p50_ms": percentile(claims, 0.5),
                                "dovecot_p50_ms": percentile(theirs, 0.5),
                                "kib_per_session": round(kib, 1),
                            }
                        )
                        print(
                            f"{size} sessions (in {took:.0f} s), {kib:.1f} KiB each; {len(ours)} deliveries: "
                            f"EXISTS to event p50 {percentile(ours, 0.5)} ms, "
                            f"p99 {percentile(ours, 0.99)} ms, "
                            f"max {percentile(ours, 1)} ms; "
                            f"to the worker's claim p50 {percentile(claims, 0.5)} ms; "
                            f"Dovecot's own wait p50 {percentile(theirs, 0.5)} ms",
                            flush=True,
                        )
                bench.look.close()
                bench.runtime.close()
                held = subprocess.run(
                    [sys.executable, "-P", __file__, "--sessions", str(chosen.peer_sessions), "--hold",
                     proxy.host, str(proxy.port), str(dovecot.ca_file)],
                    check=True, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                peer = float(held.stdout)
            finally:
                valkey.stop()
                postgres.stop()
                valkey.discard()
                postgres.discard()
    last = growth[-1]
    print(
        json.dumps(
            {
                "name": "watch",
                "ours": last["kib_per_session"],
                "peer": round(peer, 1),
                "ratio": round(peer / last["kib_per_session"], 2),
                "unit": "KiB/session",
                "kib_per_session": last["kib_per_session"],
                "p50_ms": last["p50_ms"],
                "p99_ms": last["figure"],
                "growth": growth,
                "setup": {
                    "sessions": chosen.sessions,
                    "deliveries_per_second": chosen.rate,
                    "seconds": chosen.seconds,
                    "workers": chosen.workers,
                    "clock": "from Dovecot's EXISTS, stamped by a proxy between, to the event seen committed",
                    "peer": f"IMAPClient, {chosen.peer_sessions} sessions",
                    "server": f"Dovecot {dovecot.version}, imap client_limit 100, TLS ended by the proxy",
                    "postgres": "fsync on, synchronous_commit on",
                    "cores": os.cpu_count(),
                },
            }
        )
    )
    return None


if __name__ == "__main__":
    main()
