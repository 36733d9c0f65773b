"""The embedded Postgres and Valkey: they start, stop, die and come back, and leave nothing behind."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import psycopg
import pytest
import redis

from config.errors import UserError
from worker.stack import AlreadyRunning, Postgres, Stack, Valkey, place
from worker.stack.place import known_data_directory
from worker.stack.process import Process, somebody_works_in

pytestmark = pytest.mark.xdist_group("stack")
Modes = Callable[[Path], dict[Path, tuple[int, int, int]]]
HOLDER = """
import sys, time
from pathlib import Path
from worker.stack import Stack
Stack(Path(sys.argv[1])).start()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home in a directory that nobody else may enter."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    home = closed / "home"
    yield home
    Stack(home).discard()


@pytest.fixture(scope="module")
def settled_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose cluster is made once for all these tests."""
    home = tmp_path_factory.mktemp("servers") / "home"
    yield home
    Stack(home).discard()


@pytest.fixture
def postgres(settled_home: Path) -> Iterator[Postgres]:
    """A running Postgres that keeps nothing of earlier tests."""
    server = Postgres(settled_home)
    server.start()
    with connect(server) as connection:
        connection.execute("DROP TABLE IF EXISTS kept")
    yield server
    server.stop()


@pytest.fixture
def valkey(home: Path) -> Iterator[Valkey]:
    server = Valkey(home)
    server.start()
    yield server
    server.stop()


def connect(postgres: Postgres) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(postgres.conninfo(), autocommit=True)


def put(postgres: Postgres, value: int) -> None:
    with connect(postgres) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [value])


def kept(postgres: Postgres) -> list[object]:
    with connect(postgres) as connection:
        return [row[0] for row in connection.execute("SELECT value FROM kept ORDER BY value")]


def client(valkey: Valkey) -> "redis.Redis":
    return redis.Redis(unix_socket_path=str(valkey.socket))


def data_of(home: Path) -> Path:
    data = known_data_directory(home)
    assert data is not None
    return data


def test_postgres_is_durable_checked_and_on_no_network(postgres: Postgres) -> None:
    wanted = {
        "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "data_checksums": "on",
        "server_encoding": "UTF8", "listen_addresses": "", "TimeZone": "UTC",
    }  # fmt: skip

    with connect(postgres) as connection:
        shown = {name: connection.execute(f"SHOW {name}").fetchone() for name in wanted}

    assert shown == {name: (value,) for name, value in wanted.items()}


def test_valkey_is_durable_evicts_nothing_and_is_on_no_network(valkey: Valkey) -> None:
    wanted = {"appendonly": "yes", "maxmemory-policy": "noeviction", "port": "0"}

    shown = {name: client(valkey).config_get(name)[name] for name in wanted}

    assert shown == wanted


@pytest.mark.parametrize("server", ["postgres", "valkey"])
def test_the_socket_lies_in_a_directory_for_its_account_alone(
    server: str, request: pytest.FixtureRequest
) -> None:
    sockets = request.getfixturevalue(server).socket_directory

    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert (sockets.stat().st_uid != 0) or os.geteuid() != 0


def test_postgres_keeps_rows_and_address_through_restart_and_kill(postgres: Postgres) -> None:
    address = postgres.url()
    put(postgres, 1)
    postgres.restart()
    put(postgres, 2)
    postgres.kill()
    assert not postgres.running
    postgres.start()

    assert kept(postgres) == [1, 2]
    assert postgres.url() == address


def test_valkey_keeps_what_it_answered_for_through_restart_and_kill(valkey: Valkey) -> None:
    address = valkey.url
    client(valkey).set("one", 1)
    valkey.restart()
    client(valkey).set("two", 2)
    valkey.kill()
    valkey.start()

    assert client(valkey).mget("one", "two") == [b"1", b"2"]
    assert valkey.url == address


def test_postgres_stops_though_clients_stay(postgres: Postgres) -> None:
    with connect(postgres) as connection:
        connection.execute("BEGIN")
        postgres.stop()

        assert not postgres.running
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_a_pid_file_that_names_another_program_does_not_keep_it_down(
    settled_home: Path, postgres: Postgres
) -> None:
    """After a reboot the old pid is often somebody else's, and Postgres itself would refuse to start."""
    pidfile = data_of(settled_home) / "postgres/postmaster.pid"
    lines = pidfile.read_text().splitlines()
    put(postgres, 1)
    postgres.stop()
    with subprocess.Popen(["sleep", "600"]) as other:
        pidfile.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        try:
            postgres.start()

            assert kept(postgres) == [1]
            assert other.poll() is None
        finally:
            other.kill()


def test_data_of_another_major_version_is_refused_in_a_sentence(
    settled_home: Path, postgres: Postgres
) -> None:
    postgres.stop()
    marker = data_of(settled_home) / "postgres/PG_VERSION"
    right = marker.read_text()
    marker.write_text("13\n")
    try:
        with pytest.raises(UserError, match="is Postgres 13's and the installed engine is Postgres 18"):
            postgres.start()
    finally:
        marker.write_text(right)


def test_a_cluster_half_made_is_made_again(settled_home: Path, postgres: Postgres) -> None:
    postgres.stop()
    data = data_of(settled_home) / "postgres"
    data.rename(data.with_name("postgres.new"))

    postgres.start()

    assert postgres.running


def test_a_stack_changes_no_mode_but_its_own(home: Path, modes: Modes) -> None:
    home.mkdir(mode=0o700)
    with Stack(home, durable=False):
        pass  # the first run makes the shared copies
    before = modes(home)

    with Stack(home, durable=False):
        pass

    assert modes(home) == before


def test_a_first_run_changes_no_mode_but_its_own(home: Path, modes: Modes) -> None:
    before = modes(home.parent)

    with Stack(home, durable=False):
        pass

    after = modes(home.parent)
    assert {path: after[path] for path in before} == before


def test_a_stopped_stack_leaves_no_process_no_socket_and_no_address(home: Path) -> None:
    stack = Stack(home, durable=False)
    stack.start()
    sockets = [stack.postgres.socket_directory, stack.valkey.socket_directory]
    processes = [process for process in stack.status().values() if process is not None]
    assert len(processes) == 2
    assert "MAILWRIGHT_DATABASE_URL" in (home / "stack.env").read_text()

    stack.stop()

    assert not any(process.alive for process in processes)
    assert not somebody_works_in(data_of(home))
    assert not any(path.exists() for path in sockets if path is not None)
    assert not (home / "stack.env").exists()


def test_a_discarded_stack_leaves_no_data(home: Path) -> None:
    stack = Stack(home, durable=False)
    stack.start()
    data = data_of(home)

    stack.discard()

    assert not (data / "postgres").exists()
    assert not (data / "valkey").exists()


def test_a_home_has_one_stack(home: Path) -> None:
    with Stack(home, durable=False) as first:
        with pytest.raises(AlreadyRunning, match=f"already running .process {os.getpid()}"):
            Stack(home).start()

        assert all(first.status().values())


def test_a_killed_holder_gives_way_to_the_next(home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", HOLDER, str(home)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        pidfile = data_of(home) / "postgres/postmaster.pid"
        lines = pidfile.read_text().splitlines()
        left = Process.of(int(lines[0]))
        holder.kill()
    assert left is not None
    assert left.alive

    with Stack(home) as stack:
        assert not left.alive
        assert not Path(lines[4]).exists()
        assert all(stack.status().values())


def test_a_postmaster_killed_from_outside_is_started_anew(postgres: Postgres) -> None:
    """Its sessions may outlive it for a moment; nothing starts on their data until they are gone."""
    put(postgres, 1)
    process = postgres.process
    assert process is not None
    with connect(postgres):
        process.send(signal.SIGKILL)
        assert process.wait(10)
        postgres.start()

    assert kept(postgres) == [1]


def test_the_store_is_made_once_by_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = 8
    start = Barrier(at_once)

    def make(_number: int) -> Path:
        start.wait()
        return place._root_store()

    for number in range(20):
        monkeypatch.setattr(place, "ROOT_STORE", tmp_path / str(number) / "mailwright")
        with ThreadPoolExecutor(at_once) as executor:
            assert set(executor.map(make, range(at_once))) == {place.ROOT_STORE}
        assert [path.name for path in place.ROOT_STORE.parent.iterdir()] == ["mailwright"]
        assert place.ROOT_STORE.stat().st_mode & 0o777 == 0o755
