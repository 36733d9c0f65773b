"""How fast each door takes mail: messages of 4 KB, committed in the queue, beside django-post_office.

SQL: `mailwright.enqueue_many` in transactions of 500, on one connection. HTTP: `mailwright http`, asked by 8
clients on held connections, one message a request or 250. Celery: `mailwright.enqueue` and
`mailwright.enqueue_many` (50 a task, as a task carries 256 KiB), sent by name, 2 workers; from the first that
is sent to the last that is stored. Every message has an idempotency key of its own and a mailbox of twenty.
The peer is django-post_office: `mail.send_many` in lots of 500, beside our SQL door. All on the same Postgres
with fsync and synchronous_commit on, from empty tables, in alternating runs; nothing is sent meanwhile.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from celery import Celery
from sqlalchemy import create_engine, text

from config.settings import Settings
from lab.http_door import add_key, outbox_of
from lab.ports import free_port, wait_for_port
from lab.world import Ports, add_mailboxes, add_provider
from schema import migrations
from tasks.runtime import Runtime
from tasks.secrets import new_key_line
from worker.stack import Postgres, Valkey

RECIPIENT: Final = "bob@far.example"
SUBJECT: Final = "Your order"
BODY: Final = ("x" * 70 + "\n") * 56
MAILBOXES: Final = 20
WORKERS: Final = 2
CLIENTS: Final = 8
SQL_LOT: Final = 500
HTTP_LOT: Final = 250
CELERY_LOT: Final = 50
LONGEST: Final = 120.0
COUNTS: Final = {"sql": 20_000, "http": 2_000, "http_batch": 20_000, "celery": 1_500, "celery_batch": 10_000}
"""Messages of one run by each door."""
HTTP: Final = ("http",)
WORKER: Final = ("worker", "--lane", "enqueue")
PROCESSES: Final[dict[str, Sequence[Sequence[str]]]] = {
    "http": [HTTP],
    "http_batch": [HTTP],
    "celery": [WORKER] * WORKERS,
    "celery_batch": [WORKER] * WORKERS,
}
WARM: Final = 500
"""Messages before the clock starts."""
_LENGTH: Final = re.compile(rb"content-length: (\d+)\r\n(?:.+\r\n)*\r\n", re.I)
QUEUE: Final = "mailwright.enqueue"

Mail = dict[str, Any]


def senders() -> list[str]:
    """The mailboxes."""
    return [f"anna-{number}@bench.example" for number in range(MAILBOXES)]


def lots(numbers: range, each: int) -> Iterator[tuple[str, list[Mail]]]:
    """Messages of these numbers, in lots of one mailbox."""
    for number, first in enumerate(range(numbers.start, numbers.stop, each)):
        yield (
            senders()[number % MAILBOXES],
            [
                {
                    "message": {"to": [RECIPIENT], "subject": f"{SUBJECT} {n}", "text": BODY},
                    "idempotency_key": f"order-{n}",
                }
                for n in range(first, min(first + each, numbers.stop))
            ],
        )


@dataclass(frozen=True, slots=True)
class Site:
    """Where the doors are."""

    url: str
    broker: str
    port: int
    key: str

    def stored(self) -> int:
        """How many messages are in the queue."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute("SELECT count(*) FROM mailwright.outbox").fetchone()
        return int(row[0]) if row else 0


class Client:
    """Speaks just enough HTTP: what `http.client` costs would be taken from the server's two cores."""

    def __init__(self, site: Site) -> None:
        self._socket = socket.create_connection(("127.0.0.1", site.port), timeout=60)
        self._head = f"Host: bench\r\nContent-Type: application/json\r\nAuthorization: Bearer {site.key}\r\n"

    def post(self, path: str, body: bytes, more: str = "") -> None:
        """Send a request and read its answer whole."""
        head = f"POST {path} HTTP/1.1\r\n{self._head}{more}Content-Length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode() + body)
        said = b""
        while not (length := _LENGTH.search(said)) or len(said) < length.end() + int(length[1]):
            piece = self._socket.recv(1 << 20)
            if not piece:
                raise SystemExit(f"HTTP hung up after {said[:500]!r}")
            said += piece
        if not said.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201")):
            raise SystemExit(f"HTTP said {said[:500]!r}")

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def by_sql(site: Site, numbers: range) -> None:
    """In transactions of the caller's own."""
    with psycopg.connect(site.url) as connection:
        for mailbox, items in lots(numbers, SQL_LOT):
            connection.execute(
                "SELECT count(*) FROM mailwright.enqueue_many(%s, %s::jsonb[], %s)",
                (mailbox, [json.dumps(i["message"]) for i in items], [i["idempotency_key"] for i in items]),
            )
            connection.commit()


def by_http(site: Site, numbers: range) -> None:
    """One message a request."""

    def ask(client: Client, mailbox: str, items: Sequence[Mail]) -> None:
        body = json.dumps(items[0]["message"]).encode()
        client.post(outbox_of(mailbox), body, f"Idempotency-Key: {items[0]['idempotency_key']}\r\n")

    _share(site, list(lots(numbers, 1)), ask)


def by_http_batch(site: Site, numbers: range) -> None:
    """Many a request."""

    def ask(client: Client, mailbox: str, items: Sequence[Mail]) -> None:
        client.post(outbox_of(mailbox) + "/batch", json.dumps({"messages": items}).encode())

    _share(site, list(lots(numbers, HTTP_LOT)), ask)


def by_celery(site: Site, numbers: range) -> None:
    """One message a task."""
    with Celery(broker=site.broker, set_as_current=False) as app:
        for mailbox, (item,) in lots(numbers, 1):
            arguments = (mailbox, item["message"], item["idempotency_key"])
            app.send_task("mailwright.enqueue", arguments, queue=QUEUE, ignore_result=True)


def by_celery_batch(site: Site, numbers: range) -> None:
    """Many a task."""
    with Celery(broker=site.broker, set_as_current=False) as app:
        for mailbox, items in lots(numbers, CELERY_LOT):
            app.send_task("mailwright.enqueue_many", (mailbox, items), queue=QUEUE, ignore_result=True)


DOORS: Final[dict[str, Callable[[Site, range], None]]] = {
    "sql": by_sql,
    "http": by_http,
    "http_batch": by_http_batch,
    "celery": by_celery,
    "celery_batch": by_celery_batch,
}


def _share(
    site: Site,
    work: list[tuple[str, list[Mail]]],
    ask: Callable[[Client, str, Sequence[Mail]], None],
) -> None:
    """Share the lots among clients, each on a connection that it holds."""

    def work_off(number: int) -> None:
        with closing(Client(site)) as client:
            for mailbox, items in work[number::CLIENTS]:
                ask(client, mailbox, items)

    with ThreadPoolExecutor(CLIENTS) as threads:
        for done in [threads.submit(work_off, number) for number in range(CLIENTS)]:
            done.result()


@dataclass(frozen=True, slots=True)
class Servers:
    """What both sides run on."""

    postgres: Postgres
    valkey: Valkey


@contextmanager
def servers() -> Iterator[Servers]:
    """Postgres (durable) and Valkey."""
    with ExitStack() as opened:
        home = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="mailwright-bench-")))
        postgres, valkey = Postgres(home), Valkey(home)
        for server in (postgres, valkey):
            opened.callback(server.discard)
            server.start()
        yield Servers(postgres, valkey)


@contextmanager
def database(on: Servers, name: str) -> Iterator[str]:
    """An empty database for one run."""
    on.postgres.ensure_database(name)
    yield on.postgres.url(name)
    admin = create_engine(on.postgres.url("postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        connection.execute(text("CHECKPOINT"))  # what one side wrote is no burden of the next
    admin.dispose()


@contextmanager
def site_of(url: str, on: Servers, processes: Sequence[Sequence[str]]) -> Iterator[Site]:
    """A migrated database with twenty mailboxes, and our processes over it, idle."""
    engine = create_engine(url)
    migrations.upgrade(engine)
    engine.dispose()
    port = free_port()
    values = {
        "DATABASE_URL": url,
        "BROKER_URL": on.valkey.url,
        "KEY_RING": new_key_line(),
        "HTTP_PORT": str(port),
        "LOG_LEVEL": "WARNING",
    }
    environment = os.environ | {f"MAILWRIGHT_{name}": value for name, value in values.items()}
    runtime = Runtime.open(Settings.model_validate({name.lower(): value for name, value in values.items()}))
    program = str(Path(sys.executable).with_name("mailwright"))
    running: list[subprocess.Popen[bytes]] = []
    try:
        provider = add_provider(runtime, Ports(smtp=9), sent_copy="none")
        add_mailboxes(runtime, provider, senders(), "")
        site = Site(url.replace("+psycopg", ""), on.valkey.url, port, add_key(runtime.db))
        running += [subprocess.Popen([program, *words], env=environment) for words in processes]
        if HTTP in processes:
            wait_for_port("127.0.0.1", port)
        if WORKER in processes:
            with Celery(broker=on.valkey.url, set_as_current=False) as app:
                deadline = time.monotonic() + 60
                while len(app.control.ping(timeout=0.5)) < WORKERS:
                    if time.monotonic() > deadline:
                        raise SystemExit("the workers do not answer")
        yield site
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(60)
        runtime.close()


def run_door(on: Servers, door: str, count: int) -> float:
    """Messages a second by one door, the processes behind it warm."""
    with database(on, "bench_ours") as url, site_of(url, on, PROCESSES.get(door, [])) as site:
        wait_for(site, door, range(WARM))
        return count / wait_for(site, door, range(WARM, WARM + count))


def wait_for(site: Site, door: str, numbers: range) -> float:
    """Seconds from the first message to the last that is stored."""
    began = time.perf_counter()
    DOORS[door](site, numbers)
    while (stored := site.stored()) < numbers.stop:
        if time.perf_counter() - began > LONGEST:
            raise SystemExit(f"{door}: only {stored} of {numbers.stop} messages came")
        time.sleep(0.02)
    return time.perf_counter() - began


def run_peer(on: Servers, count: int) -> float:
    """Messages a second of one run of django-post_office, in a process of its own."""
    with database(on, "bench_peer"):
        given = {"directory": str(on.postgres.socket_directory), "count": count}
        done = subprocess.run(
            [sys.executable, "-P", __file__, "--peer", json.dumps(given)],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return float(done.stdout.split()[-1])


def peer(directory: str, count: int) -> None:
    """Inside that process: set Django up, then queue, timed."""
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

    def send(numbers: range) -> None:
        for mailbox, items in lots(numbers, SQL_LOT):
            mail.send_many(
                [
                    {
                        "recipients": item["message"]["to"],
                        "sender": mailbox,
                        "subject": item["message"]["subject"],
                        "message": item["message"]["text"],
                    }
                    for item in items
                ]
            )

    send(range(WARM))
    began = time.perf_counter()
    send(range(WARM, WARM + count))
    seconds = time.perf_counter() - began
    queued = Email.objects.filter(status=STATUS.queued).count()
    if queued != WARM + count:
        raise SystemExit(f"the peer queued {queued} of {WARM + count}")
    print(count / seconds)


def main() -> None:
    """Alternate the sides and print the medians as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--doors", nargs="+", choices=list(DOORS), default=list(DOORS))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of each run's messages, for a quick look")
    parser.add_argument("--no-growth", action="store_true", help="only the full size")
    parser.add_argument("--peer", type=json.loads, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.peer:
        peer(**wanted.peer)
        return
    counts = {door: max(1, int(COUNTS[door] * wanted.share)) for door in wanted.doors}
    rates: dict[str, list[float]] = {door: [] for door in wanted.doors}
    theirs: list[float] = []
    growth = []
    with servers() as on:
        for number in range(wanted.runs):
            theirs.append(run_peer(on, int(COUNTS["sql"] * wanted.share)))
            for door in wanted.doors:
                rates[door].append(run_door(on, door, counts[door]))
            told = ", ".join(f"{door} {each[-1]:,.0f}" for door, each in rates.items())
            print(f"run {number + 1}: {told}; django-post_office {theirs[-1]:,.0f} messages/s", flush=True)
        if "sql" in counts and not wanted.no_growth:
            growth = [
                [size, round(run_door(on, "sql", size), 1)]
                for size in (counts["sql"] // 4, 4 * counts["sql"])
            ]
    median = {door: round(statistics.median(each), 1) for door, each in rates.items()}
    if "sql" in counts:
        growth.insert(len(growth) // 2, [counts["sql"], median["sql"]])
    result = {
        "name": "enqueue",
        "ours": median.get("sql"),
        "peer": round(statistics.median(theirs), 1),
        "ratio": round(
            statistics.median(a / b for a, b in zip(rates.get("sql", theirs), theirs, strict=True)), 2
        ),
        "unit": "messages/s",
        **median,
        "growth": growth,
        "setup": {
            "messages": counts,
            "bytes": len(BODY),
            "mailboxes": MAILBOXES,
            "runs": wanted.runs,
            "cores": os.cpu_count(),
            "sql": f"enqueue_many, {SQL_LOT} a transaction, one connection",
            "http": f"mailwright http, one process; {CLIENTS} clients, one message a request or {HTTP_LOT}",
            "celery": f"{WORKERS} workers; one message a task or {CELERY_LOT}",
            "peer": f"django-post_office: mail.send_many in lots of {SQL_LOT}",
            "postgres": "fsync and synchronous_commit on",
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
