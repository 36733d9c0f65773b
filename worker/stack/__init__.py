"""The embedded stack: Postgres and Valkey from wheels, run by us, and the programs that work on them."""

from worker.stack.postgres import Postgres
from worker.stack.valkey import Valkey

__all__ = ["Postgres", "Valkey"]
