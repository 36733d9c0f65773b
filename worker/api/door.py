"""What every request goes through: a key, a thread, one transaction."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import psycopg
from fastapi import Request
from sqlalchemy import event
from sqlalchemy.orm import Session

from config.settings import Settings
from schema.database import Database
from schema.tables.access import Scope
from tasks import access
from tasks.access import Caller
from tasks.outbound.bell import Bell
from worker.api.bodies import Room

T = TypeVar("T")
THREADS: Final = 4
"""At work at once. Measured with 8 clients: 4 took 670 messages a second, 10 took 590."""
LONGEST_WAIT: Final = 10
"""Seconds for another's lock, such as a key in somebody's open transaction; then the client asks again."""


class Door:
    """The database, a few threads that wait for it, and the bell of the dispatcher."""

    def __init__(self, settings: Settings, ring: Callable[[], None]) -> None:
        self.db = Database(settings.require_database_url(), pool=settings.database_pool)
        self.bell = Bell(ring)
        self.room = Room()
        event.listen(self.db.engine, "connect", _wait_briefly)
        self._threads = ThreadPoolExecutor(min(THREADS, settings.database_pool), thread_name_prefix="http")

    async def pass_(self, request: Request, scope: Scope, work: Callable[[Caller, Session], T]) -> T:
        """What ``work`` gives for the caller of this request, committed. Raises `access.Unauthenticated`,
        `access.ScopeMissing` and whatever ``work`` raises."""
        token = bearer(request)
        return await self.thread(lambda: self._pass(token, scope, work))

    async def thread(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, from a thread that may wait for the database."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _pass(self, token: str, scope: Scope, work: Callable[[Caller, Session], T]) -> T:
        caller = None
        try:
            with self.db.begin() as session:
                caller = access.authenticate(session, token)
                caller.require(scope)
                return work(caller, session)
        finally:
            if caller is not None and caller.unnoted:
                with self.db.begin() as session:
                    access.note_use(session, caller)

    def close(self) -> None:
        """Let go of everything."""
        self._threads.shutdown()
        self.bell.close()
        self.db.close()


def _wait_briefly(connection: psycopg.Connection[Any], _record: object) -> None:
    connection.execute(f"SET lock_timeout = '{LONGEST_WAIT}s'".encode())
    connection.commit()


def bearer(request: Request) -> str:
    """The token of the Authorization header (RFC 6750 §2.1); empty where there is none."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""
