"""Doorbells of the sync lanes."""

import threading

from celery import shared_task

from config.queues import Lane, queue_name
from tasks.access import SYSTEM
from tasks.runtime import current_runtime
from tasks.sync import engine

_history_slots = threading.Lock()
_history_running = 0


@shared_task(name="mailwright.sync.due", ignore_result=True)
def sync_due(lane: str) -> None:
    """Sync the mailboxes that are due in ``lane``, one after the other, for a few seconds."""
    with current_runtime() as runtime:
        wanted = Lane(lane)
        if wanted is Lane.HISTORY and not _take_history_slot(runtime.settings.concurrency // 2 or 1):
            return
        try:
            engine.sync_due(SYSTEM, runtime, wanted, lambda: ring(wanted))
        finally:
            if wanted is Lane.HISTORY:
                _give_history_slot()


def ring(lane: Lane) -> None:
    """Say that there is work in a sync lane."""
    sync_due.apply_async((lane.value,), queue=queue_name(lane), expires=10)


def _take_history_slot(most: int) -> bool:
    """History takes at most half the slots of a process."""
    global _history_running
    with _history_slots:
        if _history_running >= most:
            return False
        _history_running += 1
        return True


def _give_history_slot() -> None:
    global _history_running
    with _history_slots:
        _history_running -= 1
