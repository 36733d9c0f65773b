"""Processes of ours under test: started, frozen, killed, asked to stop; nothing of them stays."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from lab.ports import LabError, kill_session

ENDS_WITHIN: Final = 60.0
"""Seconds that a process may take to end, on a machine with other things to do."""
COMMONPLACE: Final = (" received", "succeeded in", "Sending due task", '"specversion"', "mailbox.synced")
"""Words of log lines that tell nothing after a failure."""


class Program:
    """One ``mailwright`` command as a child process in a session of its own."""

    def __init__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], directory: Path
    ) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(mailwright()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(environment),
                cwd=directory,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def freeze(self) -> None:
        """Stop every thread of it where it is (SIGSTOP), so that its state can be looked at before `kill`."""
        self._process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + ENDS_WITHIN
        while not _stopped(self.pid):
            if time.monotonic() > deadline:
                raise LabError(f"{self.name} cannot be frozen")
            time.sleep(0.001)

    def thaw(self) -> None:
        """Let it go on where it was frozen (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """``kill -9``, frozen or not; returns when it is gone with everything it started."""
        self._process.kill()
        self._process.wait(ENDS_WITHIN)
        kill_session(self.pid)

    def ask_to_stop(self) -> None:
        """SIGTERM; `ended` waits for the end."""
        self._process.send_signal(signal.SIGTERM)

    def ended(self, seconds: float = ENDS_WITHIN) -> int:
        """Wait for its end. Returns the exit code. Raises `LabError` where it goes on."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} goes on after {seconds:g} s:\n{self.tail()}") from None

    def stop(self) -> None:
        """End it, politely first; safe to call twice."""
        if self.running:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        kill_session(self.pid)

    def tail(self, lines: int = 25) -> str:
        """The last lines of what it wrote, without what it says all the time."""
        told = [
            line[:500]
            for line in self.log.read_text(errors="replace").splitlines()
            if not any(words in line for words in COMMONPLACE)
        ]
        return "\n".join([f"-- {self.name} ({self.pid})", *told[-lines:]])


def mailwright() -> Path:
    """The command beside the interpreter that runs us."""
    return Path(sys.executable).with_name("mailwright")


def connections(pid: int, port: int) -> int:
    """How many TCP connections the process ``pid`` holds open to the loopback port ``port`` (proc(5))."""
    sockets = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            sockets.add(os.readlink(entry.path))
        except OSError:  # closed between the listing and the look
            continue
    found = 0
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        far, state, inode = fields[2], fields[3], fields[9]
        if state == "01" and int(far.rpartition(":")[2], 16) == port and f"socket:[{inode}]" in sockets:
            found += 1
    return found


def _stopped(pid: int) -> bool:
    """Whether every thread is stopped, by the kernel's word."""
    states = []
    for entry in os.scandir(f"/proc/{pid}/task"):
        try:
            states.append(Path(entry.path, "stat").read_text().rpartition(")")[2].split()[0])
        except OSError:  # the thread ended
            continue
    return all(state in "TtZX" for state in states)
