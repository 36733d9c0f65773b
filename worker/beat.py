"""Beat: rings each lane's bell, unless the bell is ringing already. Any number may run."""

from typing import Any

from celery.beat import ScheduleEntry, Scheduler
from kombu import Connection


class TickScheduler(Scheduler):
    """Celery's scheduler without a file, which sends no tick to a lane whose queue is not empty."""

    def apply_async(
        self, entry: ScheduleEntry, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> Any:
        """Send one tick, or pass it over."""
        queue = (entry.options or {}).get("queue")
        if queue is not None and self._waiting(queue) > 0:
            return self.reserve(entry) if advance else None
        return super().apply_async(entry, producer=producer, advance=advance, **kwargs)

    def _waiting(self, queue: str) -> int:
        connection: Connection = self.connection
        channel: Any = connection.default_channel
        return int(channel.client.llen(queue))
