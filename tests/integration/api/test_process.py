"""``mailwright key`` and ``mailwright http`` as an operator meets them: processes of their own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from config.settings import Settings
from lab.http_door import HttpDoor
from lab.ports import Supervised, free_port, port_open
from tests.integration.api.conftest import ADDRESS

PROGRAM = str(Path(sys.executable).with_name("mailwright"))
MAIL = {"to": ["bob@far.example"], "subject": "Hello", "text": "x"}


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """What points the program at the test's servers."""
    assert settings.database_url is not None
    assert settings.broker_url is not None
    assert settings.key_ring is not None
    return {name: value for name, value in os.environ.items() if not name.startswith("MAILWRIGHT_")} | {
        "MAILWRIGHT_DATABASE_URL": settings.database_url.get_secret_value(),
        "MAILWRIGHT_BROKER_URL": settings.broker_url.get_secret_value(),
        "MAILWRIGHT_KEY_RING": settings.key_ring.get_secret_value(),
        "MAILWRIGHT_HOME": str(settings.home),
    }


@pytest.fixture
def server(environment: dict[str, str], tmp_path: Path) -> Iterator[tuple[int, Supervised]]:
    """``mailwright http``, answering."""
    port = free_port()
    process = Supervised([PROGRAM, "http", "--port", str(port)], log=tmp_path / "http.log", env=environment)
    process.wait_ready(lambda: port_open("127.0.0.1", port))
    yield port, process
    process.stop()


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *words], env=environment, capture_output=True, text=True, timeout=60)


def test_a_key_is_made_used_listed_and_taken_back(
    environment: dict[str, str], server: tuple[int, Supervised], mailbox: int
) -> None:
    run(environment, "user", "add", "shop")
    run(environment, "grant", "add", "CanSendMessages", "--user", "shop")
    made = json.loads(
        run(
            environment,
            "--json", "key", "add", "shop", "--scope", "outbox:write", "--note", "web shop",
        ).stdout
    )  # fmt: skip
    door = HttpDoor(server[0], made["key"])
    assert door.enqueue(ADDRESS, MAIL).status == 201

    listed = run(environment, "--json", "key", "list")
    assert made["key"].rpartition("_")[2] not in listed.stdout
    row = json.loads(listed.stdout)
    assert (row["id"], row["user"], row["scopes"], row["note"]) == (
        made["id"], "shop", ["outbox:write"], "web shop",
    )  # fmt: skip
    assert row["last_used_at"] is not None

    assert run(environment, "key", "remove", made["id"]).returncode == 0
    assert door.enqueue(ADDRESS, MAIL).status == 401
    trail = run(environment, "--json", "audit", "list")
    assert made["key"] not in trail.stdout
    assert {"key.added", "key.removed"} <= {json.loads(line)["action"] for line in trail.stdout.splitlines()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "nobody", "--scope", "outbox:write"], "there is no user"),
        (["add", "administrator", "--scope", "all"], "There are: outbox:read, outbox:write"),
        (["add", "administrator", "--scope", "outbox:read", "--expires", "soon"], "ISO 8601"),
        (["add", "administrator", "--scope", "outbox:read", "--expires", "2001-01-01"], "time to come"),
        (["remove", "00000000-0000-7000-8000-000000000000"], "there is no key"),
    ],
)
def test_what_makes_no_key_is_one_sentence(environment: dict[str, str], words: list[str], said: str) -> None:
    done = run(environment, "key", *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_went_away_is_told_and_its_return_needs_no_restart(
    environment: dict[str, str], server: tuple[int, Supervised], mailbox: int, database_url: str
) -> None:
    token = json.loads(
        run(environment, "--json", "key", "add", "administrator", "--scope", "outbox:write").stdout
    )["key"]
    door = HttpDoor(server[0], token)
    assert door.ask("GET", "/healthz").said == {"status": "alive"}
    assert door.ask("GET", "/readyz").status == 200
    admin = create_engine(
        make_url(database_url).set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool
    )
    name = make_url(database_url).database
    with admin.connect() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
        connection.execute(text(f"ALTER DATABASE {name} RENAME TO {name}_away"))
        try:
            refused = door.enqueue(ADDRESS, MAIL)
            assert (refused.status, refused.code) == (503, "database_down")
            assert refused.headers["retry-after"]
            door.close()
            assert door.ask("GET", "/readyz").status == 503
            door.close()
            assert door.ask("GET", "/healthz").status == 200
        finally:
            connection.execute(text(f"ALTER DATABASE {name}_away RENAME TO {name}"))
    assert door.enqueue(ADDRESS, MAIL).status == 201


def test_sigterm_ends_it_and_a_taken_port_is_one_sentence(
    environment: dict[str, str], server: tuple[int, Supervised]
) -> None:
    port, process = server
    taken = run(environment, "http", "--port", str(port))
    assert taken.returncode == 1
    assert "MAILWRIGHT_HTTP_PORT" in taken.stderr
    assert "Traceback" not in taken.stderr

    process.stop(signal.SIGTERM)
    assert not process.running
    assert "Traceback" not in process.tail(100)
