"""The lanes of work, which are the names of the Celery queues."""

from enum import StrEnum


class Lane(StrEnum):
    """One Celery queue each; a lane's message says only *there is work here*."""

    SYNC = "sync"
    HISTORY = "history"
    DISPATCH = "dispatch"
    HOUSEKEEPING = "housekeeping"
    ENQUEUE = "enqueue"


PREFIX = "mailwright."


def queue_name(lane: Lane) -> str:
    """The broker's name for a lane's queue."""
    return PREFIX + lane.value
