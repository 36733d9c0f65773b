"""The Celery app: JSON only, acknowledged early, nothing prefetched beyond need, no results kept."""

from celery import Celery
from kombu import Queue

from config.queues import Lane, queue_name
from config.settings import Settings

TASK_MODULES = (
    "tasks.sync.tasks",
    "tasks.sync.search.tasks",
    "tasks.outbound.tasks",
    "tasks.housekeeping.tasks",
)
HOUSEKEEPING_SECONDS = 30.0
UNHURRIED_SECONDS = 1.0
"""Between two bells, at least, for history and for the search index: nobody waits for either, and a bell
costs the worker some 5 ms of CPU."""


def make_app(settings: Settings, include: tuple[str, ...] = ()) -> Celery:
    """Build the app for one process: ``include`` is `TASK_MODULES` where it runs tasks, and nothing where it
    only sends them by name. Raises `UserError` where no broker is set."""
    app = Celery("mailwright", broker=settings.require_broker_url(), include=include)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,  # a lost message costs one tick; a repeated one is harmless but late
        task_queues=[Queue(queue_name(lane), routing_key=queue_name(lane)) for lane in Lane],
        task_default_queue=queue_name(Lane.HOUSEKEEPING),
        task_routes={
            name: {"queue": queue_name(Lane.ENQUEUE)}
            for name in ("mailwright.enqueue", "mailwright.enqueue_many")
        },
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=True,
        task_send_sent_event=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"visibility_timeout": 3600, "socket_timeout": 30, "retry_on_timeout": True},
        enable_utc=True,
        beat_schedule=ticks(settings),
        beat_max_loop_interval=min(settings.tick_seconds, settings.dispatch_tick_seconds),
    )
    app.set_default()
    return app


def ticks(settings: Settings) -> dict[str, dict[str, object]]:
    """What beat rings, and how often: one idempotent wake for each lane."""
    tick, dispatch = settings.tick_seconds, settings.dispatch_tick_seconds
    unhurried = max(tick, UNHURRIED_SECONDS)
    return {
        "sync": _tick("mailwright.sync.due", Lane.SYNC, tick, Lane.SYNC.value),
        "history": _tick("mailwright.sync.due", Lane.HISTORY, unhurried, Lane.HISTORY.value),
        "dispatch": _tick("mailwright.dispatch.due", Lane.DISPATCH, dispatch),
        "search": _tick("mailwright.search.due", Lane.HOUSEKEEPING, unhurried),
        "housekeeping": _tick("mailwright.housekeeping.due", Lane.HOUSEKEEPING, HOUSEKEEPING_SECONDS),
    }


def _tick(task: str, lane: Lane, seconds: float, *args: str) -> dict[str, object]:
    return {
        "task": task,
        "schedule": seconds,
        "args": args,
        "options": {"queue": queue_name(lane), "expires": max(10.0, 2 * seconds)},
    }
