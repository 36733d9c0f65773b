"""One server process of the embedded stack: started, watched until it answers, ended."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from config.errors import InternalError, UserError
from worker.stack.place import Servant
from worker.stack.process import Process

_LOG_BYTES = 10 * 2**20
_POLL_SECONDS = 0.02
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
"""All that a server inherits: a stray PGPORT or PGOPTIONS of the user's must not reach it."""


class Server:
    """A child process running as the servant account, its output in a log file."""

    def __init__(self, name: str, argv: Sequence[str | Path], *, account: Servant, log: Path) -> None:
        self.name = name
        self._log = log
        keep_short(log)
        with log.open("ab") as output:
            account.own(log)
            self._child = run_as(account, argv, output=output)
        process = Process.of(self._child.pid)
        if process is None:
            raise self._gave_up()
        self.process = process

    @property
    def running(self) -> bool:
        """True until the process ends, for whatever reason."""
        return self._child.poll() is None

    def wait_until(self, answers: Callable[[], bool], *, seconds: float) -> None:
        """Poll until the server answers. Raises `UserError`, with the log's last line, if it does not."""
        deadline = time.monotonic() + seconds
        while not answers():
            if not self.running:
                raise self._gave_up()
            if time.monotonic() > deadline:
                self.end((signal.SIGKILL, 10))
                raise UserError(f"{self.name} did not answer within {seconds:.0f} s; its log is {self._log}")
            time.sleep(_POLL_SECONDS)

    def end(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal in turn and give it its seconds, until the process has ended."""
        for number, seconds in steps:
            self._child.send_signal(number)
            try:
                self._child.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
            return
        raise InternalError(f"{self.name} (process {self._child.pid}) does not end, even by SIGKILL")

    def _gave_up(self) -> UserError:
        return UserError(f"{self.name} did not start: {last_line(self._log)} (its log is {self._log})")


def run_as(
    account: Servant, argv: Sequence[str | Path], *, output: int | object = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a process as ``account`` in a session of its own, so that Ctrl-C at a terminal is not for it.

    Raises `UserError` when it cannot be started.
    """
    identity = {"user": account.uid, "group": account.gid, "extra_groups": []} if account.foreign else {}
    try:
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            [os.fspath(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_ENVIRONMENT,
            start_new_session=True,
            umask=0o077,
            **identity,
        )
    except OSError as error:
        raise UserError(f"cannot run {argv[0]}: {error.strerror}") from error


def last_line(log: Path) -> str:
    """The last line of a log that says something, without its time stamp."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "error", "rror:"))]
    return (told or lines or ["it said nothing"])[-1]


def keep_short(log: Path) -> None:
    """Start an overlong log anew; the old one is kept once."""
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".old.log"))
