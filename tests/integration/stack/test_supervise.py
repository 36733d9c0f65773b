"""``up``, ``down`` and ``status`` as an operator meets them, each in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from worker.stack import Stack
from worker.stack.place import known_data_directory
from worker.stack.process import Process, somebody_works_in

pytestmark = pytest.mark.xdist_group("stack-supervise")
DRIVER = Path(__file__).with_name("driver.py")
Wait = Callable[..., None]
SLEEPER = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


@pytest.fixture(scope="module")
def settled_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose cluster is made once for all these tests."""
    home = tmp_path_factory.mktemp("operator") / "home"
    yield home
    Stack(home).discard()


@pytest.fixture
def home(settled_home: Path) -> Iterator[Path]:
    """The home, with nothing running before and after."""
    yield settled_home
    drive(settled_home, "down")


def drive(home: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", str(DRIVER), str(home), *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=180, check=False, env={**os.environ, **env}
    )


def listed(home: Path) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(drive(home, "status").stdout)}


def process(home: Path, name: str) -> Process:
    found = Process.of(listed(home)[name]["pid"])
    assert found is not None
    return found


def nothing_works_for(home: Path) -> bool:
    data = known_data_directory(home)
    return data is None or not somebody_works_in(data)


def test_up_detached_returns_when_all_runs_and_down_leaves_nothing(home: Path) -> None:
    up = drive(home, "detach", f"napper={SLEEPER}")
    assert (up.returncode, up.stderr) == (0, "")
    running = listed(home)
    processes = [process(home, name) for name in running]

    assert list(running) == ["supervisor", "postgres", "valkey", "napper"]
    assert {each["state"] for each in running.values()} == {"running"}
    assert drive(home, "down").stdout == "stopped.\n"
    assert not any(each.alive for each in processes)
    assert nothing_works_for(home)
    assert listed(home) == {}
    assert not (home / "stack.env").exists()


def test_a_second_up_says_that_it_runs_already(home: Path) -> None:
    drive(home, "detach", f"napper={SLEEPER}")
    before = listed(home)["supervisor"]["pid"]

    for verb in ("up", "detach"):
        again = drive(home, verb, f"napper={SLEEPER}")

        assert again.returncode == 0
        assert f"already running (process {before})" in again.stdout
    assert listed(home)["supervisor"]["pid"] == before


def test_down_of_what_does_not_run_says_so(home: Path) -> None:
    assert drive(home, "down").stdout == "nothing is running.\n"


def test_down_of_a_home_that_never_was_makes_nothing(tmp_path: Path) -> None:
    assert drive(tmp_path / "none", "down").stdout == "nothing is running.\n"
    assert list(tmp_path.iterdir()) == []


def test_programs_get_the_addresses_and_prepare_comes_before_them(home: Path, wait_for: Wait) -> None:
    note = home / "note"
    code = f"import os; open({str(note)!r}, 'w').write(os.environ['MAILWRIGHT_DATABASE_URL']); {SLEEPER}"
    drive(home, "detach", f"writer={code}")
    wait_for(lambda: note.exists() and note.read_text(), "the program's note")

    assert f"MAILWRIGHT_DATABASE_URL='{note.read_text()}'" in (home / "stack.env").read_text()
    note.unlink()


def test_a_crashed_program_is_started_again(home: Path, wait_for: Wait) -> None:
    drive(home, "detach", f"napper={SLEEPER}")
    first = process(home, "napper")

    first.send(signal.SIGKILL)

    wait_for(lambda: listed(home)["napper"]["restarts"] == 1, "the restart")
    wait_for(lambda: listed(home)["napper"]["state"] == "running", "the program")
    assert process(home, "napper") != first
    assert "napper: killed by SIGKILL, starts again in 0.5 s" in (home / "mailwright.log").read_text()


@pytest.mark.parametrize("server", ["postgres", "valkey"])
def test_a_killed_server_comes_back_at_its_address(home: Path, wait_for: Wait, server: str) -> None:
    drive(home, "detach")
    addresses = (home / "stack.env").read_text()

    process(home, server).send(signal.SIGKILL)

    wait_for(lambda: listed(home)[server]["restarts"] == 1, "the server")
    assert (home / "stack.env").read_text() == addresses
    if server == "postgres":
        url = addresses.split("'")[1].replace("postgresql+psycopg:", "postgresql:")
        psycopg.connect(url).close()


def test_a_supervisor_killed_leaves_what_down_then_stops(home: Path) -> None:
    drive(home, "detach", f"napper={SLEEPER}")
    napper = process(home, "napper")
    supervisor = process(home, "supervisor")
    supervisor.send(signal.SIGKILL)
    assert supervisor.wait(10)

    assert {each["state"] for each in listed(home).values()} == {"left behind"}
    assert drive(home, "down").stdout == "stopped what was left: napper, valkey, postgres.\n"
    assert not napper.alive
    assert nothing_works_for(home)


def test_up_after_a_killed_supervisor_starts_afresh(home: Path) -> None:
    drive(home, "detach", f"napper={SLEEPER}")
    napper = process(home, "napper")
    supervisor = process(home, "supervisor")
    supervisor.send(signal.SIGKILL)
    assert supervisor.wait(10)

    again = drive(home, "detach", f"napper={SLEEPER}")

    assert again.returncode == 0
    assert not napper.alive
    assert {each["state"] for each in listed(home).values()} == {"running"}


def test_a_preparation_that_fails_is_told_and_leaves_nothing(home: Path) -> None:
    for verb in ("up", "detach"):
        up = drive(home, verb, f"napper={SLEEPER}", TEST_REFUSAL="the migration is from tomorrow.")

        assert up.returncode == 1
        assert up.stderr == "mailwright: the migration is from tomorrow.\n"
        assert listed(home) == {}
        assert nothing_works_for(home)


def test_a_program_deaf_to_sigterm_is_killed_after_its_grace(home: Path) -> None:
    drive(home, "detach", f"deaf={DEAF}")
    deaf = process(home, "deaf")

    assert drive(home, "down").stdout == "stopped.\n"
    assert not deaf.alive
    assert "deaf: killed, it did not stop" in (home / "mailwright.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_in_front_stops_all_at_a_signal(home: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-P", str(DRIVER), str(home), "up", f"napper={SLEEPER}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as front:
        assert front.stdout is not None
        lines = iter(front.stdout.readline, "")
        assert any(line.startswith("up.") for line in lines)
        processes = [process(home, name) for name in listed(home)]
        front.send_signal(number)
        assert list(lines)[-1] == "stopped.\n"

    assert front.returncode == 0
    assert not any(each.alive for each in processes)
    assert nothing_works_for(home)


def test_programs_stop_before_the_servers(home: Path, wait_for: Wait) -> None:
    """What is on the wire must still be committed after SIGTERM."""
    note = home / "last-words"
    code = (
        "import os, psycopg, signal, time\n"
        "url = os.environ['MAILWRIGHT_DATABASE_URL'].replace('+psycopg', '')\n"
        "def last(*_):\n"
        f"    psycopg.connect(url).close(); open({str(note)!r}, 'w').write('committed'); raise SystemExit\n"
        "signal.signal(signal.SIGTERM, last)\n"
        f"open({str(note)!r}, 'w').write('ready')\n"
        "while True: time.sleep(60)\n"
    )
    drive(home, "detach", f"worker={code}")
    wait_for(lambda: note.exists() and note.read_text() == "ready", "the program")

    drive(home, "down")

    assert note.read_text() == "committed"
    note.unlink()
