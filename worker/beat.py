"""Beat: rings each lane's bell, unless the bell is ringing already. Any number may run."""

import signal
from types import FrameType
from typing import Any

from celery.apps.beat import Beat as CeleryBeat
from celery.beat import ScheduleEntry, Scheduler, Service
from kombu import Connection


class Beat(CeleryBeat):
    """Celery's beat, which ends at SIGTERM wherever it arrives."""

    def install_sync_handler(self, service: Service) -> None:
        """Celery's own handler only raises `SystemExit`. Python drops what is raised while a finaliser
        runs, and beat would tick on; so the loop is told as well."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            service.stop()
            raise SystemExit

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)


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
