"""The whole stack for crash tests: servers, two workers, beat and relay, each of which can be killed.

    Postgres, Valkey (embedded) ── worker, worker, beat, relay ──> Dovecot, two RecordingSmtp

Leases last 2 s, so what a killed process held is taken over soon after.
"""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Final, Self

import redis
from sqlalchemy import create_engine, text

from config.settings import Settings
from lab.bells import ring
from lab.crash.programs import Program
from lab.ports import LabError
from lab.servers.dovecot import Dovecot
from lab.servers.recording import Behaviour, RecordingSmtp
from lab.world import Ports, add_mailbox, add_provider
from schema import migrations
from tasks.events.sinks import redis_url
from tasks.runtime import Runtime
from tasks.secrets import new_key_line
from worker.stack import Postgres, Valkey

WORKERS: Final = 2
LEASE_SECONDS: Final = 2
REST_WITHIN: Final = 180.0
"""Seconds within which everything must be at rest again; generous, because the machine may be slow."""
READERS: Final = tuple(f"reader-{number}@crash.example" for number in range(1, 7))
"""Mailboxes that only receive."""
WRITERS: Final = tuple(f"writer-{number}@crash.example" for number in range(1, 5))
"""Mailboxes that send, and file their copies in Sent."""
FILED: Final = tuple(f"filed-{number}@crash.example" for number in range(1, 4))
"""Mailboxes that send, and whose server files the copies in Sent itself."""


class CrashStack:
    """The stack, as a context manager that leaves no process, port or file.

    ``mailboxes`` gives the inner id by address; ``runtime`` is this process's own view of the database.
    """

    def __init__(self, behaviour: Behaviour | None = None, **settings: str) -> None:
        """``settings`` are further ``MAILWRIGHT_*`` variables of the processes, by their lower-case name."""
        self._behaviour = behaviour or Behaviour()
        self._settings = settings
        self._open = ExitStack()
        self._started = 0
        self.mailboxes: dict[str, int] = {}
        self.workers: list[Program] = []
        self.others: list[Program] = []

    def __enter__(self) -> Self:
        with ExitStack() as building:
            self._start(building)
            self._open = building.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _start(self, opened: ExitStack) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mailwright-crash-"))
        opened.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.postgres = Postgres(self.directory)
        opened.callback(self.postgres.discard)
        self.postgres.start()
        self.valkey = Valkey(self.directory)
        opened.callback(self.valkey.discard)
        self.valkey.start()
        self.dovecot = Dovecot()
        opened.callback(self.dovecot.close)
        self.smtp = opened.enter_context(RecordingSmtp(self._behaviour))
        self.filing = opened.enter_context(
            RecordingSmtp(
                self._behaviour,
                filed=lambda accepted, data: self.dovecot.deliver(accepted.mail_from, data, "Sent"),
            )
        )
        self.environment = self._environment()
        self._migrate()
        self.runtime = Runtime.open(self._own_settings())
        opened.callback(self.runtime.close)
        self._add_mailboxes()
        opened.callback(self._stop_programs)
        self.workers = [self._worker() for _ in range(WORKERS)]
        self.others = [self._program("beat"), self._program("relay")]
        self.wait(self._all_synced_once, "the first sync of every mailbox")

    def rows(self, statement: str, **given: object) -> list[Any]:
        """Ask in a transaction of its own."""
        with self.runtime.db.begin() as session:
            result = session.execute(text(statement), given)
            return list(result.all())

    def one(self, statement: str, **given: object) -> Any:
        """The first value of the first row."""
        return self.rows(statement, **given)[0][0]

    def wait(self, ready: Callable[[], bool], what: str, pause: float = 0.1) -> None:
        """Look every ``pause`` seconds until ``ready()``. Raises `LabError`, with the ends of the logs, after
        `REST_WITHIN`, or when a process has ended by itself."""
        deadline = time.monotonic() + REST_WITHIN
        while not ready():
            if time.monotonic() > deadline:
                raise LabError(f"{what}: not within {REST_WITHIN:g} s\n{self.logs()}")
            for program in (*self.workers, *self.others):
                if not program.running:
                    raise LabError(f"{what}: {program.name} has ended by itself\n{self.logs()}")
            time.sleep(pause)

    def logs(self) -> str:
        """The ends of every process's log."""
        return "\n".join(program.tail() for program in (*self.workers, *self.others))

    def owner(self, lease_owner: str) -> Program | None:
        """The worker whose name stands in a lease, if it is one of ours that lives."""
        pid = int(lease_owner.split(":")[1])
        return next((worker for worker in self.workers if worker.pid == pid), None)

    def holding(self, table: str, random: Random) -> Program | None:
        """A worker that holds a lease in ``table`` now, drawn by lot; None where none does."""
        found = self.rows(
            f"SELECT DISTINCT lease_owner FROM mailwright.{table} WHERE lease_until > now() ORDER BY 1"
        )
        workers = [worker for row in found if (worker := self.owner(row.lease_owner)) is not None]
        return random.choice(workers) if workers else None

    def leases_of(self, table: str, worker: Program) -> int:
        """How many live leases of ``table`` a worker holds."""
        rows = self.rows(f"SELECT lease_owner FROM mailwright.{table} WHERE lease_until > now()")
        return sum(1 for row in rows if self.owner(row.lease_owner) is worker)

    def replace(self, gone: Program) -> Program:
        """Start a worker in the place of one that has ended."""
        self.workers[self.workers.index(gone)] = fresh = self._worker()
        return fresh

    def restart_other(self, name: str) -> None:
        """Kill beat or relay and start it again."""
        for place, program in enumerate(self.others):
            if program.name.startswith(name):
                program.kill()
                self.others[place] = self._program(name)

    def flush(self) -> None:
        """FLUSHALL: the broker forgets everything."""
        with redis.Redis.from_url(redis_url(self.valkey.url)) as client:
            client.flushall()

    def keep_house(self) -> None:
        """Ring for what beat rings for every half a minute."""
        ring(self.valkey.url, "mailwright.housekeeping.due", "housekeeping")

    def kill_broker(self) -> None:
        """SIGKILL, and up again at the same address."""
        self.valkey.kill()
        self.valkey.start()

    def _worker(self) -> Program:
        return self._program("worker")

    def _program(self, command: str) -> Program:
        self._started += 1
        return Program(f"{command}-{self._started}", [command], self.environment, self.directory)

    def _stop_programs(self) -> None:
        for program in (*self.workers, *self.others):
            with suppress(ProcessLookupError):
                program.stop()

    def _environment(self) -> Mapping[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAILWRIGHT_")}
        ours = {
            "home": str(self.directory),
            "database_url": self.postgres.url(),
            "broker_url": self.valkey.url,
            "key_ring": new_key_line(),
            "log_format": "json",
            "concurrency": "6",
            "lease_seconds": str(LEASE_SECONDS),
            "tick_seconds": "0.25",
            "dispatch_tick_seconds": "0.2",
            "poll_min_seconds": "0.2",
            "poll_max_seconds": "3",
            "imap_timeout_seconds": "20",
            "sent_search_grace_seconds": "1",
            **self._settings,
        }
        return inherited | {f"MAILWRIGHT_{name.upper()}": value for name, value in ours.items()}

    def _own_settings(self) -> Settings:
        names = {f"MAILWRIGHT_{name.upper()}": name for name in Settings.model_fields}
        return Settings.model_validate(
            {names[name]: value for name, value in self.environment.items() if name in names}
        )

    def _migrate(self) -> None:
        engine = create_engine(self.postgres.url())
        migrations.upgrade(engine)
        engine.dispose()

    def _add_mailboxes(self) -> None:
        passwords = {address: secrets.token_hex(8) for address in (*READERS, *WRITERS, *FILED)}
        for address, password in passwords.items():
            self.dovecot.add_user(address, password)
        self.passwords = passwords
        self.dovecot.start()
        reading = add_provider(self.runtime, Ports(imap=self.dovecot.imap_port), "Reading")
        both = self._sending("Writing", self.smtp, sent_copy="append")
        filing = self._sending("Filing", self.filing, sent_copy="server", resend_if_absent=True)
        for addresses, provider in ((READERS, reading), (WRITERS, both), (FILED, filing)):
            for address in addresses:
                self.mailboxes[address] = add_mailbox(self.runtime, provider, address, passwords[address])

    def _sending(self, name: str, server: RecordingSmtp, **fields: object) -> int:
        """A provider that sends through ``server`` and receives from Dovecot."""
        ports = Ports(imap=self.dovecot.imap_port, smtp=server.port)
        return add_provider(self.runtime, ports, name, smtp_timeout=20, **fields)

    def _all_synced_once(self) -> bool:
        return bool(self.one("SELECT bool_and(last_synced_at IS NOT NULL) FROM mailwright.schedule"))
