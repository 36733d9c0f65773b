"""An SMTP server of our own that counts what it accepted, and misbehaves on request.

It takes every message and delivers none. What it accepted stands in a file, one JSON line a
message, written before the 250 is sent: whoever dies, that list is what *was delivered*. A DATA
without its final dot is never in it.

    MAIL ─ RCPT… ─ DATA ─ [pause] ─ 354 ─ … ─ dot ─ recorded ─ [pause] ─ 250
                                               └─ [lost: hang up]  └─ [hang up]
"""

import asyncio
import json
import os
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Self

from lab.ports import LOOPBACK, LabError
from lab.servers.certificates import Certificate
from lab.servers.recording_session import Ending, RecordingSession
from lab.servers.recording_values import Accepted, Behaviour
from lab.servers.tree import open_tree

__all__ = ["Accepted", "Behaviour", "RecordingSmtp"]

LONGEST: Final = 1 << 26
"""Bytes in one line at most; what is more ends the session."""


class RecordingSmtp:
    """The server, in a thread of its own, on a free loopback port.

    With a ``certificate`` it offers STARTTLS; with ``tls`` as well it speaks TLS from the first byte.
    ``keep`` stores each accepted message's bytes too; ``filed`` is called with it and its bytes, before the
    reply, as by a server that files sent mail itself. ``seed`` fixes what it draws by lot.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        directory: Path | None = None,
        certificate: Certificate | None = None,
        tls: bool = False,
        keep: bool = False,
        filed: Callable[[Accepted, bytes], object] | None = None,
        seed: int = 1,
        port: int = 0,
    ) -> None:
        if tls and certificate is None:
            raise ValueError("tls needs a certificate")
        self.behaviour = behaviour or Behaviour()
        self.host = LOOPBACK
        self.port = port
        self.random = Random(seed)
        self.sessions_total = 0
        self.sessions_now = 0
        self.sessions_peak = 0
        self.in_data = 0
        """Messages between DATA and their final reply now."""
        self.context = _context(certificate)
        self._tls = tls
        self._keep = keep
        self._filed = filed
        self._tree = open_tree("recording", directory)
        self.file = self._tree.path / "accepted.jsonl"
        self._handle = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None

    def start(self) -> Self:
        """Listen; a port chosen once is kept when started again after ``stop``."""
        if self._thread is not None:
            raise LabError("this server runs already")
        ready: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="recording-smtp")
        self._thread.daemon = True
        self._thread.start()
        try:
            self.port = ready.result(10)
        except OSError:
            self._thread.join()
            self._thread = None
            raise
        return self

    def stop(self) -> None:
        """Stop listening and hang up on everyone; the record stays until ``close``."""
        if self._thread is not None and self._loop is not None and self._ending is not None:
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join(10)
            if self._thread.is_alive():
                raise LabError("the recording server does not end")
            self._thread = None

    def close(self) -> None:
        """Stop, and delete the record."""
        self.stop()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self._tree.remove()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def accepted(self) -> list[Accepted]:
        """Everything accepted so far, oldest first."""
        rows = [json.loads(line) for line in self.file.read_text().splitlines()]
        return [Accepted(**{**row, "recipients": tuple(row["recipients"])}) for row in rows]

    def message(self, sha256: str) -> bytes:
        """The bytes of an accepted message; only with ``keep``."""
        return (self._tree.path / sha256).read_bytes()

    def record(self, accepted: Accepted, data: bytes) -> None:
        """Note an accepted message: whole, in one write, handed to the system before this returns."""
        if self._keep:
            (self._tree.path / accepted.sha256).write_bytes(data)
        os.write(self._handle, json.dumps(asdict(accepted)).encode() + b"\n")
        if self._filed is not None:
            self._filed(accepted, data)

    async def _serve(self, ready: "Future[int]") -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await self._talk(reader, writer)
            finally:
                tasks.discard(task)

        try:
            server = await asyncio.start_server(
                connected,
                self.host,
                self.port,
                limit=LONGEST,
                backlog=1000,
                ssl=self.context if self._tls else None,
            )
        except OSError as error:
            ready.set_exception(error)
            return
        ready.set_result(server.sockets[0].getsockname()[1])
        await self._ending.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions_total += 1
        self.sessions_now += 1
        self.sessions_peak = max(self.sessions_peak, self.sessions_now)
        session = RecordingSession(self, self.sessions_total, reader, writer, within_tls=self._tls)
        try:
            with suppress(Ending, ConnectionError, ssl.SSLError, asyncio.LimitOverrunError, ValueError):
                await session.run()
        finally:
            self.sessions_now -= 1
            writer.transport.abort() if session.rude else writer.close()


def _context(certificate: Certificate | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.chain_file, certificate.key_file)
    return context
