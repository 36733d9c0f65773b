"""Outgoing mail: 10,000 durable messages of 4 KB in 20 mailboxes to smtp-sink, beside django-post_office.

Ours is the whole path: `mailwright.enqueue_many`, 500 a transaction, as many for each mailbox; beat's
tick, Celery workers' claims, every message composed, armed, sent, its outcome and events committed; relay
runs too. The peer is django-post_office: `mail.send_many` in lots of 500, then its `send_queued_mail`;
as it comes, and at its best settings (batches of 1,000, 16 threads, 2 processes). All on the same Postgres
with fsync and synchronous_commit on, from empty tables, in alternating runs; the clock runs from the first
enqueue to the last message stored as sent, with the workers up and idle before.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import create_engine, text

from config.settings import Settings
from lab import apt
from lab.world import Ports, add_mailboxes, add_provider
from schema import migrations
from tasks.runtime import Runtime
from tasks.secrets import new_key_line
from worker.app import make_app
from worker.stack import Postgres, Valkey

RECIPIENT: Final = "bob@far.example"
SUBJECT: Final = "Your order"
BODY: Final = ("x" * 70 + "\n") * 56
MAILBOXES: Final = 20
AT_ONCE: Final = 500
WORKERS: Final = 2
CONCURRENCY: Final = 2
"""Tasks at once of each worker: lanes that it serves."""
LONGEST: Final = 600.0
AS_IT_COMES: Final[dict[str, Any]] = {"options": {}, "processes": 1}
BEST: Final[dict[str, Any]] = {"options": {"BATCH_SIZE": 1000, "THREADS_PER_PROCESS": 16}, "processes": 2}

ENQUEUE: Final = """
    SELECT count(*) FROM generate_series(0, :mailboxes - 1) AS n, LATERAL mailwright.enqueue_many(
        'anna-' || n || '@bench.example',
        array_fill(cast(:message AS jsonb), ARRAY[cast(:each AS integer)])
    )
"""


def senders() -> list[str]:
    """The mailboxes."""
    return [f"anna-{number}@bench.example" for number in range(MAILBOXES)]


@contextmanager
def sink() -> Iterator[int]:
    """smtp-sink on a free port of loopback; it takes every message and forgets it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    program = shutil.which("smtp-sink") or "/usr/sbin/smtp-sink"
    account = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([program, *account, f"127.0.0.1:{port}", "1000"])
    deadline = time.monotonic() + 20
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if time.monotonic() > deadline:
                raise SystemExit("smtp-sink does not listen")
            time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True, slots=True)
class Servers:
    """What both sides run on."""

    postgres: Postgres
    valkey: Valkey
    port: int

    @contextmanager
    def database(self, name: str) -> Iterator[str]:
        """An empty database for one run."""
        self.postgres.ensure_database(name)
        yield self.postgres.url(name)
        admin = create_engine(self.postgres.url("postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            connection.execute(text("CHECKPOINT"))  # what one side wrote is no burden of the next
        admin.dispose()


@contextmanager
def servers() -> Iterator[Servers]:
    """Postgres (durable), Valkey and smtp-sink."""
    with ExitStack() as opened:
        home = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="mailwright-bench-")))
        postgres, valkey = Postgres(home), Valkey(home)
        for server in (postgres, valkey):
            opened.callback(server.discard)
            server.start()
        yield Servers(postgres, valkey, opened.enter_context(sink()))


@contextmanager
def service(on: Servers, url: str, add: Callable[[Runtime], None], concurrency: int) -> Iterator[None]:
    """Our workers, beat and relay, idle, and the mailboxes that ``add`` adds."""
    values = {
        "DATABASE_URL": url,
        "BROKER_URL": on.valkey.url,
        "KEY_RING": new_key_line(),
        "EVENT_SINKS": "redis",
        "CONCURRENCY": str(concurrency),
    }
    environment = os.environ | {f"MAILWRIGHT_{key}": value for key, value in values.items()}
    settings = Settings.model_validate({key.lower(): value for key, value in values.items()})
    with ExitStack() as opened:
        runtime = Runtime.open(settings)
        opened.callback(runtime.close)
        add(runtime)
        program = str(Path(sys.executable).with_name("mailwright"))
        processes = [
            subprocess.Popen(
                [program, name], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            for name in (*["worker"] * WORKERS, "beat", "relay")
        ]
        try:
            app, deadline = make_app(settings), time.monotonic() + 60
            while len(app.control.ping(timeout=0.5)) < WORKERS:
                if time.monotonic() > deadline:
                    raise SystemExit("the workers do not answer")
            time.sleep(2)
            yield
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(60)  # it finishes what it has on the wire


def run_ours(on: Servers, count: int) -> float:
    """Messages a second of one run of ours."""
    with on.database("bench_ours") as url:
        engine = create_engine(url)
        migrations.upgrade(engine)
        message = json.dumps({"to": [RECIPIENT], "subject": SUBJECT, "text": BODY})

        def add(runtime: Runtime) -> None:
            provider = add_provider(runtime, Ports(smtp=on.port), sent_copy="none")
            add_mailboxes(runtime, provider, senders(), "")  # smtp-sink knows no AUTH

        with service(on, url, add, CONCURRENCY):
            began = time.perf_counter()
            with engine.connect() as connection:
                for start in range(0, count, AT_ONCE):
                    each = min(AT_ONCE, count - start) // MAILBOXES
                    given = {"mailboxes": MAILBOXES, "message": message, "each": each}
                    connection.execute(text(ENQUEUE), given)
                    connection.commit()
            sent = 0
            while sent < count:
                if time.perf_counter() - began > LONGEST:
                    raise SystemExit(f"only {sent} of {count} messages were sent in {LONGEST:g} s")
                time.sleep(0.1)
                with engine.connect() as connection:
                    sent = connection.execute(
                        text("SELECT count(*) FROM mailwright.outbox WHERE state = 'sent'")
                    ).scalar_one()
            seconds = time.perf_counter() - began
        engine.dispose()
    return count / seconds


def run_peer(on: Servers, count: int, how: dict[str, Any]) -> tuple[float, float]:
    """Messages a second of one run of django-post_office, in a process of its own; and seconds from its last
    enqueue to its last message sent."""
    with on.database("bench_peer"):
        given = {
            "directory": str(on.postgres.socket_directory), "port": on.port, "count": count, **how
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-P", __file__, "--peer", json.dumps(given)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"django-post_office failed: {done.stderr[-2000:]}")
        rate, waited = done.stdout.split()[-2:]
        return float(rate), float(waited)


def peer(directory: str, port: int, count: int, options: dict[str, Any], processes: int) -> None:
    """Inside that process: set Django up, then queue and send, timed."""
    import django
    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "post_office"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "bench_peer",
                "USER": "mailwright",
                "HOST": directory,
                "PORT": "5432",
            }
        },
        EMAIL_BACKEND="post_office.EmailBackend",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=port,
        POST_OFFICE=options,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        USE_TZ=True,
        SECRET_KEY="bench",
    )
    django.setup()
    from django.core.management import call_command
    from post_office import mail
    from post_office.models import STATUS, Email

    call_command("migrate", verbosity=0)
    each = [
        {"recipients": [RECIPIENT], "sender": sender, "subject": SUBJECT, "message": BODY}
        for sender in senders()
    ]
    began = time.perf_counter()
    for start in range(0, count, AT_ONCE):
        mail.send_many([each[n % MAILBOXES] for n in range(start, min(start + AT_ONCE, count))])
    queued = time.perf_counter()
    call_command("send_queued_mail", verbosity=0, processes=processes)
    over = time.perf_counter()
    sent = Email.objects.filter(status=STATUS.sent).count()
    if sent != count:
        raise SystemExit(f"the peer sent {sent} of {count}")
    print(count / (over - began), over - queued)


def main() -> None:
    """Alternate the sides and print both ratios, the medians of the runs' own, as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-growth", action="store_true", help="only the full size")
    parser.add_argument("--peer", type=json.loads, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.peer:
        peer(**wanted.peer)
        return
    if wanted.count % (4 * MAILBOXES):
        parser.error(f"--count is {wanted.count}: give a multiple of {4 * MAILBOXES}")
    apt.ensure_mail_servers()
    ours: list[float] = []
    plain: list[float] = []
    best: list[float] = []
    growth = []
    with servers() as on:
        for number in range(wanted.runs):
            plain.append(run_peer(on, wanted.count, AS_IT_COMES)[0])
            ours.append(run_ours(on, wanted.count))
            best.append(run_peer(on, wanted.count, BEST)[0])
            print(
                f"run {number + 1}: ours {ours[-1]:,.0f}, django-post_office as it comes {plain[-1]:,.0f}, "
                f"at its best {best[-1]:,.0f} messages/s",
                flush=True,
            )
        if not wanted.no_growth:
            growth = [[size, round(run_ours(on, size), 1)] for size in (wanted.count // 4, 4 * wanted.count)]
    growth.insert(len(growth) // 2, [wanted.count, round(statistics.median(ours), 1)])
    result = {
        "name": "outbound",
        "ours": round(statistics.median(ours), 1),
        "peer": round(statistics.median(plain), 1),
        "ratio": median_ratio(ours, plain),
        "peer_best": round(statistics.median(best), 1),
        "ratio_best": median_ratio(ours, best),
        "unit": "messages/s",
        "growth": growth,
        "setup": {
            "messages": wanted.count,
            "bytes": len(BODY),
            "mailboxes": MAILBOXES,
            "runs": wanted.runs,
            "cores": os.cpu_count(),
            "ours": f"SQL door, {WORKERS} workers of {CONCURRENCY} lanes, beat, relay; a provider's defaults",
            "peer": "django-post_office as it comes: send_many, send_queued_mail",
            "peer_best": "the same with batches of 1,000, 16 threads, 2 processes",
            "server": "smtp-sink on loopback",
            "postgres": "fsync and synchronous_commit on",
            "path": "first enqueue to last message stored as sent",
        },
    }
    print(json.dumps(result))


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Of runs side by side."""
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 2)


if __name__ == "__main__":
    main()
