"""What the demo stands on: the command line, the database beside it, the mail server, and patience."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from lab.http_door import HttpDoor
from lab.servers import Mail
from lab.servers.recording import RecordingSmtp

PATIENCE_SECONDS: Final = 120.0

EVENTS: Final = """
    (SELECT type, subject, data FROM mailwright.events
     UNION ALL SELECT type, subject, data FROM mailwright.events_pending) AS e
"""
"""Every event that is committed, whether the relay has given it its position or not."""

Run = Callable[..., str]


class DemoFailed(Exception):
    """What did not come out as it should."""


@dataclass(frozen=True, slots=True)
class Stage:
    """``run`` is the command line (arguments, ``given`` on standard input); ``database`` looks on; ``broker``
    is where Celery messages go, ``http`` the API; ``passwords`` are those of the mail server's people, by
    address; ``shaky`` is an SMTP server that hangs up."""

    run: Run
    database: psycopg.Connection[Any]
    broker: str
    http: HttpDoor
    mail: Mail
    passwords: Mapping[str, str]
    shaky: RecordingSmtp

    def tell(self, *arguments: str) -> Any:
        """What a command says, as JSON."""
        return json.loads(self.run("--json", *arguments))

    def value(self, query: str, given: Sequence[Any] = ()) -> Any:
        """The first value that a question gives now."""
        row = self.database.execute(query.encode(), given).fetchone()
        self.database.commit()
        return row[0] if row else None

    def wait(self, query: str, wanted: Any, what: str, given: Sequence[Any] = (), every: float = 0.2) -> None:
        """Until the first value is ``wanted``; looks ``every`` so many seconds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := self.value(query, given)) != wanted:
            if time.monotonic() > deadline:
                raise DemoFailed(f"{what}: {found} instead of {wanted} after {PATIENCE_SECONDS:.0f} s")
            time.sleep(every)

    def wait_for(self, query: str, what: str, given: Sequence[Any] = (), every: float = 0.2) -> Any:
        """Until there is a first value, which is given back."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := self.value(query, given)) is None:
            if time.monotonic() > deadline:
                raise DemoFailed(f"{what} was not there after {PATIENCE_SECONDS:.0f} s")
            time.sleep(every)
        return found

    def wait_for_event(self, kind: str, subject: str, every: float = 0.2) -> None:
        """Until an event of this type is committed about ``subject``, which has one such event only."""
        query = f"SELECT count(*) FROM {EVENTS} WHERE type = %s AND subject = %s"
        self.wait(query, 1, f"event {kind} of {subject}", (kind, subject), every)


def together(*works: Callable[[], Any]) -> list[Any]:
    """Do what does not wait for one another at the same time; what each gave. Raises the first fault, once
    all have ended."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [done.result() for done in [pool.submit(work) for work in works]]


def say(line: str) -> None:
    """One line of the account."""
    print(f"· {line}", flush=True)


def more(line: str) -> None:
    """What belongs to the line before."""
    print(f"    {line}", flush=True)


def runner(home: Path, http_port: int) -> Run:
    """The command line on a stack of its own, which polls every second or two, though it is told of news."""
    program = str(Path(sys.executable).with_name("mailwright"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAILWRIGHT_")}
    environment |= {
        "MAILWRIGHT_HOME": str(home),
        "MAILWRIGHT_HTTP_PORT": str(http_port),
        "MAILWRIGHT_POLL_MIN_SECONDS": "0.3",
        "MAILWRIGHT_POLL_MAX_SECONDS": "0.7",
    }

    def run(*arguments: str, given: str | None = None) -> str:
        done = subprocess.run(
            [program, *arguments], env=environment, input=given, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DemoFailed(f"mailwright {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    return run


@contextmanager
def stack_up(run: Run) -> Iterator[None]:
    """The embedded stack, for as long as it is needed."""
    run("up", "--detach")
    try:
        yield
    finally:
        run("down")


def address_of(home: Path, name: str) -> str:
    """An address that the stack wrote down, by its variable."""
    for line in (home / "stack.env").read_text().splitlines():
        variable, _, value = line.partition("=")
        if variable == name:
            return value.strip("'\"")
    raise DemoFailed(f"the stack wrote no {name}")
