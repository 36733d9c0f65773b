"""The doorbell of housekeeping."""

from celery import shared_task

from tasks.access import SYSTEM
from tasks.housekeeping import engine
from tasks.runtime import current_runtime


@shared_task(name="mailwright.housekeeping.due", ignore_result=True)
def housekeeping_due() -> None:
    """Tidy up."""
    with current_runtime() as runtime:
        engine.tidy(SYSTEM, runtime)
