"""Ringing for a worker as beat and any app do: a task by its name, through the broker."""

from typing import Any

from celery import Celery


def ring(broker: str, task: str, lane: str, *arguments: Any) -> None:
    """Send a task by its name."""
    with Celery(broker=broker, set_as_current=False) as app:
        app.send_task(task, args=arguments, queue=f"mailwright.{lane}", ignore_result=True)
