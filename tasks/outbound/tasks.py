"""The Celery doors of the room: the wake of the dispatcher, and the tasks that carry mail.

Whoever can write to the broker may hand in mail, on behalf of the users that ``MAILWRIGHT_ENQUEUE_AS`` names.
There is no result backend: a refusal is an event, ``outbound.refused``, with the id of the task.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from celery import Task, shared_task

from config.errors import PermissionDenied, TransientError, UserError
from config.queues import Lane, queue_name
from config.settings import Settings
from tasks.access import SYSTEM, Actor, quoted
from tasks.outbound.bell import Bell
from tasks.outbound.dispatch import dispatch
from tasks.outbound.engine import enqueue_many, refused
from tasks.outbound.errors import MailboxUnknown, MessageRefused, MessageTooBig
from tasks.outbound.values import Accepted, Order, order_of
from tasks.runtime import Runtime, current_runtime

MOST_BYTES = 256 * 2**10
"""Bytes of JSON that a task may carry; who sends more uses SQL or HTTP."""
RETRY_SECONDS = 5
"""Until a task is tried again that found no database."""

_log = structlog.get_logger()


@shared_task(name="mailwright.dispatch.due", ignore_result=True)
def dispatch_due() -> None:
    """Serve the lanes whose mail is due, for one slice of time; wake another where more is due."""
    with current_runtime() as runtime:
        if dispatch(SYSTEM, runtime).more and not runtime.stopping.is_set():
            wake()


# Acknowledged late, unlike a wake: this one carries what nobody else knows yet. So it may run twice; its key
# makes that harmless.
@shared_task(
    name="mailwright.enqueue",
    bind=True,
    ignore_result=True,
    acks_late=True,
    max_retries=None,
    throws=(UserError,),
)
def enqueue_task(
    self: "Task[Any, Any]",
    /,
    mailbox: object = None,
    message: object = None,
    idempotency_key: object = None,
    principal: object = None,
    *more: object,
    **unknown: object,
) -> None:
    """Put a message into a mailbox's queue. The key defaults to the task's id, so that a task that runs twice
    doubles nothing."""
    order = Order(message, self.request.id if idempotency_key is None else idempotency_key)
    (answer,) = _hand_in(self, mailbox, [order], principal, more, unknown)
    if isinstance(answer, UserError):
        raise answer


@shared_task(
    name="mailwright.enqueue_many",
    bind=True,
    ignore_result=True,
    acks_late=True,
    max_retries=None,
    throws=(UserError,),
)
def enqueue_many_task(
    self: "Task[Any, Any]",
    /,
    mailbox: object = None,
    messages: object = None,
    principal: object = None,
    *more: object,
    **unknown: object,
) -> None:
    """Put many messages into a mailbox's queue: a list of ``{"message": …, "idempotency_key": …}``. Each is
    accepted or refused by itself; the key defaults to the task's id and the number of the message, from 1."""
    items = messages if isinstance(messages, list) else [messages]
    orders = [order_of(item, f"{self.request.id}:{number}") for number, item in enumerate(items, 1)]
    answers = _hand_in(self, mailbox, orders, principal, more, unknown)
    faults = [answer for answer in answers if isinstance(answer, UserError)]
    if faults and len(faults) == len(answers):
        raise faults[0]


def _hand_in(
    task: "Task[Any, Any]",
    mailbox: object,
    orders: Sequence[Order],
    principal: object,
    more: Sequence[object],
    unknown: Mapping[str, object],
) -> list[Accepted | UserError]:
    """Accept what can be; tell of the rest by events."""
    task_id = str(task.request.id)
    with current_runtime() as runtime:
        try:
            try:
                if more or unknown:
                    raise MessageRefused(
                        f"the task {task.name} has no further argument. See docs/sending.md."
                    )
                if len(json.dumps([order.message for order in orders])) > MOST_BYTES:
                    raise MessageTooBig(f"a task may carry {MOST_BYTES} bytes of message. Use SQL or HTTP.")
                if not isinstance(mailbox, str):
                    raise MailboxUnknown("name the mailbox by its address or its id.")
                actor = asker(runtime.settings, principal)
                with runtime.db.begin() as session:
                    answers = enqueue_many(actor, session, mailbox, orders)
            except UserError as fault:
                answers = [fault] * len(orders)
            if any(isinstance(answer, UserError) for answer in answers):
                with runtime.db.begin() as session:
                    refused(session, task_id, str(mailbox), answers)
        except TransientError as error:
            raise task.retry(exc=error, countdown=RETRY_SECONDS) from error
        if any(isinstance(answer, Accepted) for answer in answers):
            runtime.kept(_bell).pull()
    for answer in answers:
        if isinstance(answer, UserError):
            _log.warning("enqueue.refused", task=task_id, code=answer.code, error=str(answer))
    accepted = [str(answer.uid) for answer in answers if isinstance(answer, Accepted)]
    _log.info("enqueue.accepted", task=task_id, messages=len(accepted), first=accepted[:1])
    return answers


def asker(settings: Settings, principal: object) -> Actor:
    """On whose behalf a task hands in mail. Raises `PermissionDenied` for whom the setting does not name."""
    names = [name.strip() for name in settings.enqueue_as.split(",") if name.strip()]
    anyone = "*" in names
    named = [name for name in names if name != "*"]
    if principal is None and named:
        return Actor(named[0])
    if isinstance(principal, str) and (anyone or principal.lower() in {name.lower() for name in named}):
        return Actor(principal)
    shown = quoted(str(principal)) if principal is not None else "nobody"
    raise PermissionDenied(
        f"the broker may not hand in mail on behalf of {shown}. See MAILWRIGHT_ENQUEUE_AS."
    )


def wake() -> None:
    """Say that there is mail to send; a wake that is lost costs one tick."""
    dispatch_due.apply_async(queue=queue_name(Lane.DISPATCH), expires=30, retry=False)


def _bell(runtime: Runtime) -> Bell:
    return Bell(wake)
