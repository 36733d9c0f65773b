"""The embedded stack: Postgres and Valkey from wheels, run by us, and the programs that work on them."""

from worker.stack.keeper import Program
from worker.stack.postgres import Postgres
from worker.stack.stack import Addresses, AlreadyRunning, Stack
from worker.stack.supervise import ProgramStatus, State, down, status, up
from worker.stack.valkey import Valkey

__all__ = [
    "Addresses",
    "AlreadyRunning",
    "Postgres",
    "Program",
    "ProgramStatus",
    "Stack",
    "State",
    "Valkey",
    "down",
    "status",
    "up",
]
