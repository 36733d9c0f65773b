"""The Celery doors of the room: the wake of the dispatcher, and the task that carries mail."""

import json
from collections.abc import Mapping
from typing import Any

import structlog
from celery import Task, shared_task

from config.errors import UserError
from config.queues import Lane, queue_name
from tasks.access import SYSTEM, Actor
from tasks.outbound.dispatch import dispatch
from tasks.outbound.engine import enqueue
from tasks.outbound.errors import MessageTooBig
from tasks.runtime import current_runtime

MOST_BYTES = 256 * 2**10
"""Bytes of JSON that a broker message may carry; who sends more uses SQL or HTTP."""

_log = structlog.get_logger()


@shared_task(name="mailwright.dispatch.due", ignore_result=True)
def dispatch_due() -> None:
    """Serve the lanes whose mail is due, for one slice of time; wake another where more is due."""
    with current_runtime() as runtime:
        if dispatch(SYSTEM, runtime).more and not runtime.stopping.is_set():
            wake()


@shared_task(name="mailwright.enqueue", bind=True, ignore_result=True)
def enqueue_task(
    self: "Task[Any, Any]",
    mailbox: str,
    message: Mapping[str, Any],
    idempotency_key: str | None = None,
    principal: str | None = None,
) -> None:
    """Put a message into a mailbox's queue. The key defaults to the task's id, so that a redelivered task
    doubles nothing. ``principal`` names the user who asks; without one the broker itself is trusted."""
    with current_runtime() as runtime:
        try:
            if len(json.dumps(message)) > MOST_BYTES:
                raise MessageTooBig(f"a task may carry {MOST_BYTES} bytes of message. Use SQL or HTTP.")
            actor = SYSTEM if principal is None else Actor(principal)
            with runtime.db.begin() as session:
                accepted = enqueue(
                    actor,
                    session,
                    mailbox,
                    message,
                    idempotency_key or self.request.id,
                    principal or "celery",
                )
        except UserError as error:
            _log.warning("enqueue.refused", code=error.code, error=str(error), mailbox=mailbox)
            raise
        _log.info("enqueue.accepted", message=str(accepted.uid), duplicate=accepted.duplicate)
    wake()


def wake() -> None:
    """Say that there is mail to send; a wake that is lost costs one tick."""
    dispatch_due.apply_async(queue=queue_name(Lane.DISPATCH), expires=30, retry=False)
