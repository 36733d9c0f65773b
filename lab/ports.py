"""Loopback ports and child processes: found, waited for, and proved gone.

Everything here polls with a deadline; nothing waits for a fixed time.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
POLL: Final = 0.02
"""Seconds between two looks."""


class LabError(Exception):
    """A server of the lab did not do what it should: start, answer, or end."""


def free_port(host: str = LOOPBACK) -> int:
    """A TCP port nobody listens on now, chosen by the kernel."""
    return free_ports(1, host)[0]


def free_ports(count: int, host: str = LOOPBACK) -> list[int]:
    """``count`` different free TCP ports."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def port_open(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def wait_until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Look until ``ready()``; raises `LabError` naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {seconds:g} s")
        time.sleep(POLL)


def wait_for_port(host: str, port: int, deadline: float = 20.0) -> None:
    """Wait until something listens on the port; ``deadline`` in seconds from now."""
    wait_until(lambda: port_open(host, port), deadline, f"listening on {host}:{port}")


class Supervised:
    """One child process in a session of its own, with everything it starts.

    ``stop`` ends the process politely, then whatever is left of its session, and returns when
    no process of it lives; it raises `LabError` otherwise.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: str | int | None = None,
    ) -> None:
        self.log = log
        self._name = Path(command[0]).name
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env=dict(env) if env is not None else None,
                user=user,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The child's process id, which is its session's and group's too."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child itself still runs."""
        return self._process.poll() is None

    def members(self) -> list[int]:
        """Ids of the living processes of the child's session."""
        return session_members(self.pid)

    def wait_ready(self, ready: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until ``ready()``; raises `LabError` with the log's end if the child ends first."""

        def look() -> bool:
            if not self.running:
                raise LabError(f"{self._name} ended with {self._process.returncode}:\n{self.tail()}")
            return ready()

        try:
            wait_until(look, seconds, f"{self._name} ready")
        except LabError:
            self.stop()
            raise

    def tail(self, lines: int = 15) -> str:
        """The last lines of what the child wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, polite: signal.Signals = signal.SIGTERM, seconds: float = 10.0) -> None:
        """End the child and all of its session; safe to call twice."""
        if self.running:
            self._process.send_signal(polite)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        kill_session(self.pid, seconds)
        self._process.poll()


def kill_session(session: int, seconds: float = 10.0) -> None:
    """End what is left of a session by SIGKILL; raises `LabError` if any of it outlives ``seconds``."""
    deadline = time.monotonic() + seconds
    while left := session_members(session):
        if time.monotonic() > deadline:
            raise LabError(f"session {session}: processes {left} do not end")
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL)


def session_members(session: int) -> list[int]:
    """Ids of the living (not zombie) processes in a session; where there is no /proc, its leader."""
    if not Path("/proc/self/stat").exists():
        return [session] if _alive(session) else []
    members = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):  # it ended between the listing and the look
                fields = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] not in "ZX":
                    members.append(int(entry.name))
    return members


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
