"""Outgoing mail: 5,000 durable messages of 4 KB to Postfix's smtp-sink, beside django-post_office.

Ours is the whole path: `SELECT mailwright.enqueue(…)` in transactions of 500, beat's tick, Celery workers'
claims, every message composed, armed, sent, its outcome and events committed; relay runs too. The peer is
django-post_office as it comes: `mail.send_many` in lots of 500, then its `send_queued_mail` command. Both on
the same Postgres with fsync and synchronous_commit on, from empty tables, in alternating runs; the clock
runs from the first enqueue to the last message stored as sent, with the workers up and idle before.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

from config.settings import Settings
from lab import apt
from lab.world import Ports, add_mailbox, add_provider
from schema import migrations
from tasks.runtime import Runtime
from tasks.secrets import new_key_line
from worker.stack import Postgres, Valkey

SENDER, RECIPIENT = "anna@bench.example", "bob@far.example"
SUBJECT, BODY = "Your order", ("x" * 70 + "\n") * 56
AT_ONCE = 500
LONGEST = 600.0


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


@contextmanager
def database(postgres: Postgres, name: str) -> Iterator[str]:
    """An empty database for one run."""
    postgres.ensure_database(name)
    yield postgres.url(name)
    admin = create_engine(postgres.url("postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def run_ours(postgres: Postgres, broker: str, port: int, count: int, workers: int, number: int) -> float:
    """Messages a second of one run of ours."""
    with database(postgres, f"bench_ours_{number}") as url:
        engine = create_engine(url)
        migrations.upgrade(engine)
        values = {
            "DATABASE_URL": url,
            "BROKER_URL": broker,
            "KEY_RING": new_key_line(),
            "EVENT_SINKS": "redis",
        }
        environment = os.environ | {f"MAILWRIGHT_{key}": value for key, value in values.items()}
        program = str(Path(sys.executable).with_name("mailwright"))
        runtime = Runtime.open(Settings.model_validate({key.lower(): value for key, value in values.items()}))
        processes = [
            subprocess.Popen(
                [program, name], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            for name in (*["worker"] * workers, "beat", "relay")
        ]
        try:
            provider = add_provider(runtime, Ports(smtp=port), sent_copy="none")
            add_mailbox(runtime, provider, SENDER, "")  # smtp-sink knows no AUTH
            time.sleep(4)  # an idle service is what mail is handed to
            message = json.dumps({"to": [RECIPIENT], "subject": SUBJECT, "text": BODY})
            began = time.perf_counter()
            with engine.connect() as connection:
                for start in range(0, count, AT_ONCE):
                    connection.execute(
                        text("""SELECT mailwright.enqueue(:sender, cast(:message AS jsonb))
                                FROM generate_series(1, :lot)"""),
                        {"sender": SENDER, "message": message, "lot": min(AT_ONCE, count - start)},
                    )
                    connection.commit()
            sent = 0
            while sent < count:
                if time.perf_counter() - began > LONGEST:
                    raise SystemExit(f"only {sent} of {count} messages were sent in {LONGEST:g} s")
                time.sleep(0.05)
                with engine.connect() as connection:
                    sent = connection.execute(
                        text("SELECT count(*) FROM mailwright.outbox WHERE state = 'sent'")
                    ).scalar_one()
            return count / (time.perf_counter() - began)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)
            runtime.close()
            engine.dispose()


def run_peer(postgres: Postgres, port: int, count: int, number: int) -> float:
    """Messages a second of one run of django-post_office, in a process of its own."""
    name = f"bench_peer_{number}"
    with database(postgres, name):
        directory = postgres.socket_directory
        done = subprocess.run(
            [sys.executable, "-P", __file__, "--peer", name, str(directory), str(port), str(count)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return float(done.stdout.split()[-1])


def peer(name: str, directory: str, port: int, count: int) -> None:
    """Inside that process: set Django up, then queue and send, timed."""
    import django
    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "post_office"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": name,
                "USER": "mailwright",
                "HOST": directory,
                "PORT": "5432",
            }
        },
        EMAIL_BACKEND="post_office.EmailBackend",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=port,
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
    began = time.perf_counter()
    for start in range(0, count, AT_ONCE):
        lot = min(AT_ONCE, count - start)
        mail.send_many(
            [{"recipients": [RECIPIENT], "sender": SENDER, "subject": SUBJECT, "message": BODY}] * lot
        )
    call_command("send_queued_mail", verbosity=0)
    seconds = time.perf_counter() - began
    sent = Email.objects.filter(status=STATUS.sent).count()
    if sent != count:
        raise SystemExit(f"the peer sent {sent} of {count}")
    print(count / seconds)


def main() -> None:
    """Alternate both sides and print the ratio of their medians as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--peer", nargs=4, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.peer:
        peer(wanted.peer[0], wanted.peer[1], int(wanted.peer[2]), int(wanted.peer[3]))
        return
    apt.ensure_mail_servers()
    directory = Path(tempfile.mkdtemp(prefix="mailwright-bench-"))
    postgres, valkey = Postgres(directory), Valkey(directory)
    ours: list[float] = []
    theirs: list[float] = []
    try:
        postgres.start()
        valkey.start()
        with sink() as port:
            for number in range(wanted.runs):
                theirs.append(run_peer(postgres, port, wanted.count, number))
                ours.append(run_ours(postgres, valkey.url, port, wanted.count, wanted.workers, number))
                print(
                    f"run {number + 1}: ours {ours[-1]:.0f}, django-post_office {theirs[-1]:.0f} messages/s"
                )
    finally:
        postgres.discard()
        valkey.stop()
        valkey.discard()
        shutil.rmtree(directory, ignore_errors=True)
    fast, slow = statistics.median(ours), statistics.median(theirs)
    result = {
        "name": "outbound",
        "ours": round(fast, 1),
        "peer": round(slow, 1),
        "ratio": round(fast / slow, 2),
        "unit": "messages/s",
        "setup": {
            "messages": wanted.count,
            "bytes": len(BODY),
            "runs": wanted.runs,
            "cores": os.cpu_count(),
            "ours": f"SQL door, {wanted.workers} worker, beat, relay; provider's defaults (3 connections)",
            "peer": "django-post_office as it comes: send_many, send_queued_mail",
            "server": "smtp-sink on loopback",
            "postgres": "fsync and synchronous_commit on",
            "path": "first enqueue to last message stored as sent",
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
