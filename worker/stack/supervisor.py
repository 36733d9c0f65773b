"""The process that keeps a home's servers and programs running; see `worker.stack.supervise`."""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from config.errors import InternalError, UserError
from worker.stack import record
from worker.stack.detach import Echo, Ready
from worker.stack.keeper import Keeper, Pause, Program
from worker.stack.process import Process
from worker.stack.stack import Addresses, Stack

_WATCH_SECONDS: Final = 5.0
"""Longest between two looks; the end of a child is noticed at once, by SIGCHLD."""
_SETTLE_SECONDS: Final = 1.0
"""A program that ends sooner than this is reported before the stack is called ready."""
_STOP: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Supervisor:
    """Runs one home's stack in this process, whose main thread it needs for the signals."""

    def __init__(self, home: Path, programs: Sequence[Program], say: Echo) -> None:
        self._stack = Stack(home)
        self._programs = programs
        self._say = say
        self._keepers: list[Keeper] = []
        self._server_restarts = {"postgres": 0, "valkey": 0}
        self._server_pause = Pause()
        self._servers_began = 0.0
        self._revive_at: float | None = None
        self._asked = 0
        me = Process.of(os.getpid())
        if me is None:
            raise InternalError("this process is not to be found in /proc")
        self._me = me

    def run(self, prepare: Callable[[Addresses], None], ready: Ready) -> int:
        """Start all, watch until a signal asks to stop, stop all. Returns the exit code."""
        with self._signals() as wake:
            addresses = self._start_servers()
            try:
                self._note()
                prepare(addresses)
                self._start_programs(addresses, wake)
                if not self._asked:
                    self._say("up. Ctrl-C or `mailwright down` stops it.")
                    ready()
                while not self._asked:
                    self._watch(wake)
            finally:
                self._stop(wake)
        return 0

    def _start_servers(self) -> Addresses:
        addresses = self._stack.start()
        self._servers_began = time.monotonic()
        for name, process in self._stack.status().items():
            self._say(f"{name}: up (process {process.pid if process else '?'})")
        return addresses

    def _start_programs(self, addresses: Addresses, wake: int) -> None:
        env = {**os.environ, **addresses.environment(), "MAILWRIGHT_HOME": str(self._stack.home)}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # without bytecode each start takes seconds longer
        for program in self._programs:
            if self._asked:
                return
            keeper = Keeper(program, env)
            keeper.start()
            self._keepers.append(keeper)
            kept = keeper.record().process
            self._say(f"{program.name}: started (process {kept.pid if kept else '?'})")
            self._note()
        settled = time.monotonic() + _SETTLE_SECONDS
        while not self._asked and (left := settled - time.monotonic()) > 0:
            self._watch(wake, at_most=left)

    def _watch(self, wake: int, *, at_most: float = _WATCH_SECONDS) -> None:
        """Sleep until a signal, a due restart or ``at_most`` seconds; then look after everything."""
        now = time.monotonic()
        due = [at for keeper in self._keepers if (at := keeper.restart_at) is not None]
        due += [] if self._revive_at is None else [self._revive_at]
        _sleep(wake, min([at_most, *(max(0.0, at - now) for at in due)]))
        if self._asked:
            return
        changed = self._look_after_servers()
        for keeper in self._keepers:
            line = keeper.look(time.monotonic())
            if line is not None:
                self._say(line)
                changed = True
        if changed:
            self._note()

    def _look_after_servers(self) -> bool:
        now = time.monotonic()
        down = [name for name, process in self._stack.status().items() if process is None]
        if not down:
            return False
        if self._revive_at is None:
            pause = self._server_pause.after(now - self._servers_began)
            self._revive_at = now + pause
            self._say(f"{' and '.join(down)}: ended, starts again in {pause:g} s")
            return True
        if now < self._revive_at:
            return False
        self._servers_began, self._revive_at = now, None
        try:
            self._stack.revive()
        except UserError as error:  # said, and tried again after a longer pause
            self._say(str(error))
        else:
            for name in down:
                self._server_restarts[name] += 1
            self._say(f"{' and '.join(down)}: up again")
        return True

    def _stop(self, wake: int) -> None:
        """Stop the programs, last first, each within its grace, then the servers."""
        asked_before = self._asked
        began = time.monotonic()
        for keeper in reversed(self._keepers):
            keeper.ask_to_stop()
        for keeper in reversed(self._keepers):
            while not keeper.has_stopped():
                left = began + keeper.program.grace - time.monotonic()
                if left <= 0 or self._asked > max(1, asked_before):
                    self._say(f"{keeper.program.name}: killed, it did not stop")
                    keeper.kill()
                    break
                _sleep(wake, left)
        self._stack.stop()
        record.remove(self._stack.home)
        self._say("stopped.")

    def _note(self) -> None:
        servers = [
            record.Kept(name, process, self._server_restarts[name], 0.0, server=True)
            for name, process in self._stack.status().items()
        ]
        record.write(self._stack.home, self._me, [*servers, *(keeper.record() for keeper in self._keepers)])

    @contextmanager
    def _signals(self) -> Iterator[int]:
        """Count requests to stop, and yield a file descriptor that any signal makes readable."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        waker = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        before = {number: signal.getsignal(number) for number in (*_STOP, signal.SIGCHLD)}
        for number in _STOP:
            signal.signal(number, self._ask)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        try:
            yield reading
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(waker)
            os.close(reading)
            os.close(writing)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked += 1


def _sleep(wake: int, seconds: float) -> None:
    """Wait for a signal, at most ``seconds``."""
    readable, _, _ = select.select([wake], [], [], seconds)
    if readable:
        os.read(wake, 4096)
