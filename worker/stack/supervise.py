"""``mailwright up``, ``down`` and ``status``: the servers and the programs on them, kept running.

    lock ──> Postgres, Valkey ──> prepare (migrations) ──> programs ──> watch … SIGTERM or SIGINT
                                                                           │
    unlock <── Postgres, Valkey stop <── programs stop, last first <───────┘

A second SIGTERM or SIGINT kills the programs at once. A supervisor killed by SIGKILL leaves its processes
running; its record tells the next ``up`` or ``down`` which they are, and they are stopped first.
"""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from config.errors import UserError
from worker.stack import record
from worker.stack.detach import Echo, Ready, detached
from worker.stack.keeper import Program
from worker.stack.leftovers import stop_leftovers
from worker.stack.place import make_private
from worker.stack.process import Process
from worker.stack.server import keep_short
from worker.stack.stack import Addresses, AlreadyRunning, Lock
from worker.stack.supervisor import Supervisor

LOG: Final = "mailwright.log"
_SERVERS_SECONDS: Final = 120.0
"""Longest that both servers may take to stop."""


class State(StrEnum):
    RUNNING = "running"
    WAITING = "waiting"
    """It ended and is about to be started again."""
    LEFT_BEHIND = "left behind"
    """It runs, but its supervisor was killed; the next ``up`` or ``down`` stops it."""


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """One process of a home's stack."""

    name: str
    pid: int | None
    uptime: float | None
    """Seconds; None while it waits."""
    state: State
    restarts: int


def up(
    home: Path,
    programs: Sequence[Program],
    *,
    detach: bool,
    echo: Echo,
    prepare: Callable[[Addresses], None] | None = None,
) -> int:
    """Start the servers, call ``prepare``, start the programs and keep all running until told to stop.

    With ``detach`` it returns once all have been started, and they run on with their output in
    ``HOME/mailwright.log``. A stack that runs already is fine: that is said and 0 returned. Returns an exit
    code; raises `UserError` when a server, ``prepare`` or a program cannot start; then nothing runs.
    """
    home = home.expanduser().absolute()

    def work(say: Echo, ready: Ready) -> int:
        return Supervisor(home, programs, say).run(prepare or (lambda addresses: None), ready)

    try:
        _refuse_if_running(home)
        if detach:
            make_private(home)
            keep_short(home / LOG)
            return detached(work, log=home / LOG, echo=echo)
        return work(echo, lambda: None)
    except AlreadyRunning as error:
        echo(str(error))
        return 0


def down(home: Path, echo: Echo) -> int:
    """Stop a home's stack, or what a killed supervisor left of it. Returns an exit code.

    Raises `UserError` when it does not stop, or is held by a process that is no supervisor.
    """
    home = home.expanduser().absolute()
    if not home.is_dir():
        echo("nothing is running.")
        return 0
    known = record.read(home)
    if known is not None and known.supervisor.alive:
        grace = max((each.grace for each in known.kept), default=0.0)
        known.supervisor.send(signal.SIGTERM)
        if not known.supervisor.wait(grace + _SERVERS_SECONDS):
            raise UserError(
                f"the stack (process {known.supervisor.pid}) is still stopping. Look at {home / LOG}."
            )
        echo("stopped.")
        return 0
    lock = Lock(home)
    lock.take()
    try:
        stopped = stop_leftovers(home)
    finally:
        lock.release()
    echo(f"stopped what was left: {', '.join(stopped)}." if stopped else "nothing is running.")
    return 0


def status(home: Path) -> list[ProgramStatus]:
    """List a home's processes in the order of their start; none when its stack does not run."""
    known = record.read(home.expanduser())
    if known is None:
        return []
    supervised = known.supervisor.alive
    found = [_status("supervisor", known.supervisor, State.RUNNING, 0)] if supervised else []
    for each in known.kept:
        if each.process is not None and each.process.alive:
            state = State.RUNNING if supervised else State.LEFT_BEHIND
            found.append(_status(each.name, each.process, state, each.restarts))
        elif supervised:
            found.append(ProgramStatus(each.name, None, None, State.WAITING, each.restarts))
    return found


def _status(name: str, process: Process, state: State, restarts: int) -> ProgramStatus:
    return ProgramStatus(name, process.pid, process.uptime, state, restarts)


def _refuse_if_running(home: Path) -> None:
    """Say so before a daemon is made; the lock decides in the end."""
    known = record.read(home)
    if known is not None and known.supervisor.alive and known.supervisor.pid != os.getpid():
        raise AlreadyRunning(
            f"the stack of {home} is already running (process {known.supervisor.pid}). "
            "`mailwright status` shows it, `mailwright down` stops it."
        )
