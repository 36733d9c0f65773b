"""The doorbell of the search index."""

import threading

from celery import shared_task

from tasks.runtime import current_runtime
from tasks.sync.search.index import index_due

_one_a_process = threading.Lock()


@shared_task(name="mailwright.search.due", ignore_result=True)
def search_due() -> None:
    """Index what is due, in one slot of a process at most."""
    if not _one_a_process.acquire(blocking=False):
        return
    try:
        with current_runtime() as runtime:
            index_due(runtime)
    finally:
        _one_a_process.release()
