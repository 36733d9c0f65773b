"""What docs/sending.md shows is true: its examples are run as they stand, its tables are the code's."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from config.settings import Settings
from lab.http_door import add_key, served
from lab.ports import Supervised
from lab.world import Ports, add_mailbox, add_provider
from schema.tables.outbound import RecipientState, State
from tasks.outbound.errors import REFUSALS
from tasks.runtime import Runtime
from worker.api.problems import CODES, status_of

PAGE = Path(__file__).resolve().parents[3] / "docs" / "sending.md"
BIN = Path(sys.executable).parent


def section(title: str) -> str:
    """What stands under a heading."""
    return PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def block(title: str, language: str, number: int = 0) -> str:
    """A code block of a section."""
    return re.findall(rf"```{language}\n(.*?)```", section(title), re.S)[number]


def table(title: str) -> dict[str, str]:
    """The first column of a section's tables and the second."""
    return dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]+?) \|", section(title), re.M))


@pytest.fixture
def environment(settings: Settings, runtime: Runtime) -> dict[str, str]:
    """What points a program of ours at the test's servers; a mailbox by the page's address is there."""
    provider = add_provider(runtime, Ports(smtp=9))
    add_mailbox(runtime, provider, "anna@example.org", "secret")
    assert settings.database_url is not None
    assert settings.broker_url is not None
    assert settings.key_ring is not None
    return {name: value for name, value in os.environ.items() if not name.startswith("MAILWRIGHT_")} | {
        "MAILWRIGHT_DATABASE_URL": settings.database_url.get_secret_value(),
        "MAILWRIGHT_BROKER_URL": settings.broker_url.get_secret_value(),
        "MAILWRIGHT_KEY_RING": settings.key_ring.get_secret_value(),
        "MAILWRIGHT_HOME": str(settings.home),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }


def by_http(runtime: Runtime, environment: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the example needs curl")
    with served(runtime.settings) as port:
        code = block("HTTP", "sh").replace("127.0.0.1:8080", f"127.0.0.1:{port}")
        run(["sh", "-ec", code], environment | {"KEY": add_key(runtime.db)})


def by_sql(runtime: Runtime, environment: dict[str, str], tmp_path: Path) -> None:
    with psycopg.connect(plain(environment), autocommit=True) as connection:
        connection.execute(block("SQL", "sql").encode())


def by_celery(runtime: Runtime, environment: dict[str, str], tmp_path: Path) -> None:
    worker = Supervised(
        [str(BIN / "mailwright"), "worker", "--lane", "enqueue"], log=tmp_path / "worker.log", env=environment
    )
    try:
        broker = environment["MAILWRIGHT_BROKER_URL"]
        run(
            [sys.executable, "-c", block("Celery", "python").replace("redis://127.0.0.1:6379/0", broker)],
            {"PATH": environment["PATH"]},
        )
        worker.wait_ready(lambda: "enqueue.accepted" in worker.log.read_text(), 60)
    finally:
        worker.stop()


def by_command_line(runtime: Runtime, environment: dict[str, str], tmp_path: Path) -> None:
    run(["sh", "-ec", block("Command line", "sh")], environment)


DOORS = (by_http, by_sql, by_celery, by_command_line)


def run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def plain(environment: dict[str, str]) -> str:
    return environment["MAILWRIGHT_DATABASE_URL"].replace("+psycopg", "")


def queued(runtime: Runtime) -> list[Any]:
    with runtime.db.begin() as session:
        return list(
            session.execute(
                text("""SELECT o.request ->> 'subject', k.key, k.principal FROM mailwright.outbox AS o
                        JOIN mailwright.idempotency_keys AS k ON k.outbound_uid = o.uid ORDER BY o.id""")
            ).all()
        )


@pytest.mark.parametrize("door", DOORS)
def test_the_example_of_each_door_puts_the_message_into_the_queue(
    runtime: Runtime,
    environment: dict[str, str],
    tmp_path: Path,
    door: Callable[[Runtime, dict[str, str], Path], None],
) -> None:
    door(runtime, environment, tmp_path)
    assert queued(runtime) == [("Order 17", "order-17", "administrator")]


def test_all_examples_together_send_it_once(
    runtime: Runtime, environment: dict[str, str], tmp_path: Path
) -> None:
    for door in DOORS:
        door(runtime, environment, tmp_path)
    assert len(queued(runtime)) == 1

    with psycopg.connect(plain(environment), autocommit=True) as connection:
        rows = connection.execute(block("SQL", "sql", 1).encode()).fetchall()
    assert [(row[0], row[2]) for row in rows] == [(1, True), (2, False)]
    assert [row[0] for row in queued(runtime)] == ["Order 17", "Order 18"]


def test_a_user_made_as_the_page_says_may_call_the_sql_door(
    runtime: Runtime, environment: dict[str, str]
) -> None:
    name = f"shop_{runtime.owner[-8:]}"
    run(["sh", "-ec", block("SQL", "sh").replace("shop", name)], environment)
    with psycopg.connect(plain(environment), autocommit=True) as connection:
        connection.execute(block("SQL", "sql", 2).replace("ROLE shop", f"ROLE {name}").encode())
        try:
            connection.execute(f"SET SESSION AUTHORIZATION {name}".encode())
            connection.execute(block("SQL", "sql").encode())
            connection.execute("RESET SESSION AUTHORIZATION")
        finally:
            connection.rollback()
            connection.execute("RESET SESSION AUTHORIZATION")
            connection.execute(f"DROP ROLE {name}".encode())
    assert queued(runtime) == [("Order 17", "order-17", name)]


def test_the_table_of_codes_is_the_one_list() -> None:
    told = table("Codes")

    assert set(told) == set(CODES)
    for code, kind in REFUSALS.items():
        assert told[code] == str(status_of(kind("x"))), code


def test_every_state_is_explained() -> None:
    assert set(table("The life of a message")) == set(State)
    for state in RecipientState:
        assert f"`{state}`" in section("The life of a message")


def test_examples_are_short() -> None:
    for title, language in (("HTTP", "sh"), ("SQL", "sql"), ("Celery", "python"), ("Command line", "sh")):
        assert len(block(title, language).splitlines()) <= 5
