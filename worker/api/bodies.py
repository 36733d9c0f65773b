"""Reading a request's body: bounded in size before it is read, in time while it is, and in all together."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn

from fastapi import Request
from starlette.requests import ClientDisconnect

from tasks.outbound.errors import MessageTooBig
from worker.api.problems import BodyRefused, TooBusy

MOST_BYTES: Final = 64 * 2**20
"""Of one body: the most that a message may take as JSON."""
MOST_TOGETHER: Final = 256 * 2**20
"""Of all bodies that are in hand at once."""
SILENCE: Final = 30.0
"""Longest pause, in seconds, within a body."""
SLOWEST: Final = 300.0
"""Longest that a body may take, in seconds."""


class Room:
    """The bytes that all bodies in hand may take together."""

    def __init__(self, most: int = MOST_TOGETHER) -> None:
        self._left = most

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body, as long as it is needed. Raises `BodyRefused`, `MessageTooBig` or `TooBusy`."""
        wanted = announced(request)
        if wanted > self._left:
            raise TooBusy("too many large requests at once. Try again soon.")
        self._left -= wanted
        try:
            yield await _read(request, wanted)
        finally:
            self._left += wanted


def announced(request: Request) -> int:
    """How many bytes the body will have at most. Raises where they are too many, or no JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BodyRefused("send JSON, with Content-Type: application/json.", 415)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise BodyRefused("send the body as it is, without Content-Encoding.", 415)
    length = request.headers.get("content-length")
    if length is None:
        return MOST_BYTES
    if not length.isascii() or not length.isdigit() or len(length) > 19:
        raise BodyRefused("Content-Length is no number.")
    if int(length) > MOST_BYTES:
        raise MessageTooBig(f"a request may carry {MOST_BYTES} bytes.")
    return int(length)


async def _read(request: Request, most: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    stream = request.stream()
    try:
        async with asyncio.timeout(SLOWEST):
            while True:
                async with asyncio.timeout(SILENCE):
                    piece = await anext(stream, None)
                if piece is None:
                    return b"".join(pieces)
                size += len(piece)
                if size > most:
                    raise MessageTooBig(f"a request may carry {MOST_BYTES} bytes, or what it announces.")
                pieces.append(piece)
    except TimeoutError:
        raise BodyRefused("the body of the request came too slowly.", 408) from None
    except ClientDisconnect:
        raise BodyRefused("the request ended before its body.") from None


def parsed(body: bytes) -> Any:
    """The JSON of a body. Raises `BodyRefused` for what is none, or holds what no program should send."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError:
        raise BodyRefused("the body is not UTF-8.") from None
    except RecursionError:
        raise BodyRefused("the JSON is nested too deeply.") from None
    except json.JSONDecodeError as error:
        raise BodyRefused(
            f"the body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except ValueError:
        raise BodyRefused("the JSON holds a number that is none, or far too long.") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)
