"""Processes known by more than their number, so that a reused pid is never mistaken for ours (proc(5))."""

import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from config.errors import InternalError

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One process of this machine's present boot."""

    pid: int
    started: int
    """Clock ticks between boot and its start (field 22 of /proc/PID/stat)."""
    boot: str

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """Return the living process ``pid``, or None."""
        started = _started(pid)
        return None if started is None else cls(pid, started, _boot())

    @property
    def alive(self) -> bool:
        """True while this very process runs; a zombie does not."""
        return self.boot == _boot() and _started(self.pid) == self.started

    @property
    def uptime(self) -> float:
        """Seconds since it started."""
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / os.sysconf("SC_CLK_TCK"))

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process and to no later bearer of its pid."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return
        finally:
            os.close(handle)

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended; False when it still runs after ``seconds``."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive:
                return True
            readable, _, _ = select.select([handle], [], [], seconds)
            return bool(readable)
        finally:
            os.close(handle)

    def children(self) -> list["Process"]:
        """Return the living children."""
        found = (Process.of(pid) for pid in _pids() if _parent(pid) == self.pid)
        return [process for process in found if process is not None]

    def end(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal in turn and give it its seconds, until the process has ended.

        Raises `InternalError` if it survives the last.
        """
        for number, seconds in steps:
            self.send(number)
            if self.wait(seconds):
                return
        raise InternalError(f"process {self.pid} does not end, even by {steps[-1][0].name}")


def works_in(pid: int, directory: Path) -> bool:
    """True when ``pid`` lives and its working directory is ``directory``."""
    try:
        return Path(os.readlink(_PROC / str(pid) / "cwd")) == directory.resolve()
    except OSError:
        return False


def somebody_works_in(directory: Path) -> bool:
    """True when a process has its working directory at or below ``directory``."""
    top = directory.resolve()
    for pid in _pids():
        try:
            place = Path(os.readlink(_PROC / str(pid) / "cwd"))
        except OSError:
            continue
        if place == top or top in place.parents:
            return True
    return False


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _boot() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command's name (which may hold anything); [0] is the state."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _started(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[1])
