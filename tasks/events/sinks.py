"""Where events go: a structlog JSON line, a Redis stream. Each is fed in order, at least once."""

import json
import sys
from collections.abc import Sequence
from typing import Any, Protocol, TextIO

import redis
import structlog
from sqlalchemy import Row

from config.errors import TransientError, UserError
from config.settings import Settings
from tasks.events.envelope import cloudevent


class SinkDown(TransientError):
    """A sink took nothing; it is tried again from where it stands."""

    code = "sink_down"


class Sink(Protocol):
    """Something that takes events. ``name`` is its row in the table of sinks."""

    name: str

    def resume(self, position: int) -> int:
        """Where to go on, given the last position it is known to have."""

    def feed(self, rows: Sequence[Row[Any]]) -> None:
        """Take events in order. Raises `SinkDown`."""


class LogSink:
    """One structlog JSON line an event on ``stream``."""

    name = "log"

    def __init__(self, stream: TextIO | None = None) -> None:
        self._logger = structlog.wrap_logger(
            structlog.PrintLogger(stream or sys.stdout),
            processors=[structlog.processors.JSONRenderer(ensure_ascii=False)],
        )

    def resume(self, position: int) -> int:
        """A line once written stays written."""
        return position

    def feed(self, rows: Sequence[Row[Any]]) -> None:
        """Print."""
        for row in rows:
            event = cloudevent(row)
            self._logger.info(event.pop("type"), **event)


class RedisSink:
    """A Redis stream, trimmed to about ``length`` entries, each under the id ``<position>-0``, so that
    an event fed twice stands once."""

    name = "redis"

    def __init__(self, url: str, stream: str, length: int) -> None:
        self._client = redis.Redis.from_url(redis_url(url), socket_timeout=10, socket_connect_timeout=5)
        self._stream = stream
        self._length = length

    def resume(self, position: int) -> int:
        """The stream itself knows its last entry; one that vanished is filled again from what it would
        hold at most."""
        try:
            last = self._client.xinfo_stream(self._stream)["last-generated-id"]
        except redis.ResponseError:
            return max(0, position - self._length)  # no such stream
        except redis.RedisError as error:
            raise SinkDown(f"the Redis stream cannot be reached: {type(error).__name__}.") from error
        return int((last.decode() if isinstance(last, bytes) else last).split("-")[0])

    def feed(self, rows: Sequence[Row[Any]]) -> None:
        """Append, in one pipeline."""
        pipeline = self._client.pipeline(transaction=False)
        for row in rows:
            pipeline.xadd(
                self._stream,
                {"event": json.dumps(cloudevent(row), ensure_ascii=False)},
                id=f"{row.position}-0",
                maxlen=self._length,
                approximate=True,
            )
        try:
            results = pipeline.execute(raise_on_error=False)
        except redis.RedisError as error:
            raise SinkDown(f"the Redis stream took nothing: {type(error).__name__}.") from error
        for result in results:
            # An entry that is there already was fed before a crash.
            if isinstance(result, redis.RedisError) and "equal or smaller" not in str(result):
                raise SinkDown(f"the Redis stream took nothing: {type(result).__name__}.")


def redis_url(url: str) -> str:
    """A broker URL as redis-py wants it: Celery writes a socket ``redis+socket:///path?virtual_host=0``."""
    if not url.startswith("redis+socket://"):
        return url
    path, _, options = url.removeprefix("redis+socket://").partition("?")
    database = next((o.split("=")[1] for o in options.split("&") if o.startswith("virtual_host=")), "0")
    return f"unix://{path}?db={database}"


def open_sinks(settings: Settings) -> list[Sink]:
    """The sinks that the settings name. Raises `UserError` for one that does not exist."""
    sinks: list[Sink] = []
    for name in filter(None, (part.strip() for part in settings.event_sinks.split(","))):
        match name:
            case "log":
                sinks.append(LogSink())
            case "redis":
                sinks.append(
                    RedisSink(
                        settings.require_broker_url(), settings.event_stream, settings.event_stream_length
                    )
                )
            case _:
                raise UserError(f'MAILWRIGHT_EVENT_SINKS names "{name}"; there are: log, redis.')
    return sinks
