"""One supervised program: kept running, with a growing pause after each crash, and stopped within its grace.

started ──ends──> waiting ──pause over──> started
    └──── stop ────┴──> stopped
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from config.errors import UserError
from worker.stack.process import Process
from worker.stack.record import Kept

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_SETTLED: Final = 30.0
"""Seconds of life after which a crash counts as the first again."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program to keep running beside the servers."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables on top of those of the supervisor."""
    grace: float = 45.0
    """Seconds it may take to stop after SIGTERM before it is killed."""


class Pause:
    """The pause before the next restart: doubled by each quick end, forgotten after a settled life."""

    def __init__(self) -> None:
        self._quick = 0

    def after(self, lived: float) -> float:
        """Seconds to wait after a life of ``lived`` seconds."""
        self._quick = 0 if lived >= _SETTLED else self._quick + 1
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * float(1 << min(max(self._quick - 1, 0), 16)))


class Keeper:
    """Keeps one program running."""

    def __init__(self, program: Program, env: Mapping[str, str]) -> None:
        self.program = program
        self._env = {**env, **program.env}
        self._child: subprocess.Popen[bytes] | None = None
        self._process: Process | None = None
        self._pause = Pause()
        self._restart_at = 0.0
        self._began = 0.0
        self._restarts = 0

    def start(self) -> None:
        """Start it, in a session of its own. Raises `UserError` when there is no such program."""
        try:
            self._child = subprocess.Popen(
                self.program.argv,
                env=self._env,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(f"cannot run {self.program.argv[0]}: {error.strerror}") from error
        self._began = time.monotonic()
        self._process = Process.of(self._child.pid)

    def look(self, now: float) -> str | None:
        """Notice an end and make good for it when its pause is over; return a line about it, or None.

        ``now`` is `time.monotonic`'s.
        """
        if self._child is None:
            if now < self._restart_at:
                return None
            self._restarts += 1
            try:
                self.start()
            except UserError as error:  # its program is being replaced, perhaps: said, and tried again
                self._restart_at = now + self._pause.after(0)
                return str(error)
            return f"{self.program.name}: started again"
        code = self._child.poll()
        if code is None:
            return None
        pause = self._pause.after(now - self._began)
        self._child, self._process, self._restart_at = None, None, now + pause
        return f"{self.program.name}: {_ending(code)}, starts again in {pause:g} s"

    @property
    def restart_at(self) -> float | None:
        """When `look` will start it again, by `time.monotonic`; None while it runs."""
        return None if self._child is not None else self._restart_at

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._child is not None:
            self._child.terminate()

    def has_stopped(self) -> bool:
        """True once it has ended."""
        return self._child is None or self._child.poll() is not None

    def kill(self) -> None:
        """Kill it and all that it started in its session."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def record(self) -> Kept:
        """Itself, for the home's record."""
        return Kept(self.program.name, self._process, self._restarts, self.program.grace, server=False)


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
