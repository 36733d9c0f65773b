"""Mail on its way out: put into a mailbox's queue, listed, shown, cancelled."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

import schema
from config.errors import UserError
from schema.tables.access import Scope
from schema.tables.outbound import State
from tasks import access, outbound
from tasks.access import Caller
from tasks.outbound import Accepted, Order
from tasks.outbound.values import order_of
from worker.api.answers import answer
from worker.api.bodies import announced, parsed
from worker.api.door import Door
from worker.api.problems import CODES, BodyRefused, ParameterRefused, of_error

MOST_ORDERS: Final = 1000
"""Messages that one batch may hold."""
UNASKED: Final = 64 * 2**10
"""Bytes of body that are read before it is known who asks: a look at the key by itself would cost as much."""


def routes(door: Door) -> APIRouter:
    """``/v1/mailboxes/{mailbox}/outbox`` and ``/v1/outbox``."""
    router = APIRouter(prefix="/v1", tags=["outbox"])

    async def take(request: Request, mailbox: str, many: bool) -> list[Accepted | UserError]:
        if "content-length" not in request.headers or announced(request) > UNASKED:
            await door.pass_(request, Scope.OUTBOX_WRITE, lambda caller, session: None)
        key = request.headers.get("idempotency-key")
        async with door.room.body(request) as body:

            def work(caller: Caller, session: Session) -> list[Accepted | UserError]:
                value = parsed(body)
                orders = _orders(value) if many else [Order(value, key)]
                return outbound.enqueue_many(caller.actor, session, mailbox, orders)

            answers = await door.pass_(request, Scope.OUTBOX_WRITE, work)
        if any(isinstance(one, Accepted) and not one.duplicate for one in answers):
            door.bell.pull()
        return answers

    @router.post(
        "/mailboxes/{mailbox}/outbox",
        summary="Put a message into a mailbox's queue",
        status_code=201,
        openapi_extra=_body("OutgoingMessage", key=True),
        responses=_says(200, "The key is known: this is the first message", "Accepted"),
    )
    async def enqueue(request: Request, mailbox: str) -> Response:
        """Accepted means committed. `mailbox` is its address or its id. The same `Idempotency-Key` with the
        same message answers 200 with the first message's id, with another message 409."""
        (one,) = await take(request, mailbox, many=False)
        if isinstance(one, UserError):
            raise one
        where = {"Location": f"/v1/outbox/{one.uid}"}
        return answer(_accepted(one), 200 if one.duplicate else 201, where)

    @router.post(
        "/mailboxes/{mailbox}/outbox/batch",
        summary="Put many messages into a mailbox's queue",
        openapi_extra=_body("Batch"),
    )
    async def enqueue_many(request: Request, mailbox: str) -> Response:
        """At most 1,000, in one transaction. Each is accepted or refused by itself: `results` has, in order,
        an id or a problem for each, with the status that it would have had alone."""
        answers = await take(request, mailbox, many=True)
        return answer({"results": [_result(one) for one in answers]})

    def page(
        caller: Caller, session: Session, limit: int, after: UUID | None, **wanted: Any
    ) -> Mapping[str, Any]:
        rows = outbound.listing(caller.actor, session, limit=limit + 1, before=after, **wanted)
        shown = rows[:limit]
        return {
            "messages": [{name: getattr(row, name) for name in row.__slots__} for row in shown],
            "next": shown[-1].id if len(rows) > limit else None,
        }

    @router.get("/outbox", summary="List messages, the newest first")
    async def listing(
        request: Request,
        mailbox: str | None = None,
        state: State | None = None,
        since: datetime | None = None,
        recipient: str | None = None,
        key: str | None = None,
        after: UUID | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    ) -> Response:
        """`after` is the `next` of the page before; it is null on the last page. A time without a zone is
        UTC."""
        for name, text in (("recipient", recipient), ("key", key)):
            if text is not None and not access.storable(text):
                raise ParameterRefused(f"{name}: holds a character that no text has.")
        if since is not None and since.tzinfo is None:
            since = since.replace(tzinfo=UTC)

        def work(caller: Caller, session: Session) -> Mapping[str, Any]:
            return page(
                caller, session, limit, after,
                mailbox=mailbox, state=state, since=since, recipient=recipient, key=key,
            )  # fmt: skip

        return answer(await door.pass_(request, Scope.OUTBOX_READ, work))

    @router.get("/outbox/{message}", summary="All that is known of a message")
    async def show(request: Request, message: UUID) -> Response:
        """Its state, its recipients with what the server said of each, and every attempt."""

        def work(caller: Caller, session: Session) -> dict[str, Any]:
            return outbound.show(caller.actor, session, message)

        return answer(await door.pass_(request, Scope.OUTBOX_READ, work))

    @router.post("/outbox/{message}/cancel", summary="Stop a message")
    async def cancel(request: Request, message: UUID) -> Response:
        """Answers its state. One that is in a worker's hand is cancelled if it comes back from there; 409
        where it is over already."""

        def work(caller: Caller, session: Session) -> State:
            return outbound.cancel(caller.actor, session, message)

        state = await door.pass_(request, Scope.OUTBOX_WRITE, work)
        return answer({"id": message, "state": state})

    return router


@cache
def schemas() -> dict[str, Any]:
    """The JSON Schemas that the description of the API names: the message's own, and what is made of it."""
    path = Path(schema.__file__).parent / "messages" / "outbound.schema.json"
    message = json.loads(path.read_text(encoding="utf-8"))
    moved = json.loads(json.dumps(message).replace('"#/$defs/', '"#/components/schemas/'))
    parts = moved.pop("$defs", {})
    one = {
        "type": "object",
        "required": ["message"],
        "additionalProperties": False,
        "properties": {
            "message": {"$ref": "#/components/schemas/OutgoingMessage"},
            "idempotency_key": {"type": "string", "minLength": 1, "maxLength": 255},
        },
    }
    return {
        **parts,
        "OutgoingMessage": {name: value for name, value in moved.items() if not name.startswith("$")},
        "Batch": {
            "type": "object",
            "required": ["messages"],
            "additionalProperties": False,
            "properties": {
                "messages": {"type": "array", "minItems": 1, "maxItems": MOST_ORDERS, "items": one}
            },
        },
        "Accepted": {
            "type": "object",
            "properties": {"id": {"type": "string", "format": "uuid"}, "duplicate": {"type": "boolean"}},
        },
        "Problem": {
            "type": "object",
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "code": {"type": "string", "examples": list(CODES)},
                "detail": {"type": "string"},
            },
        },
    }


def _orders(value: object) -> Sequence[Order]:
    match value:
        case {"messages": [*items], **more} if not more and 1 <= len(items) <= MOST_ORDERS:
            return [order_of(item) for item in items]
        case _:
            raise BodyRefused(
                f'a batch is {{"messages": [{{"message": {{…}}, "idempotency_key": "…"}}, …]}}, '
                f"with 1 to {MOST_ORDERS} of them."
            )


def _accepted(one: Accepted) -> dict[str, Any]:
    return {"id": one.uid, "duplicate": one.duplicate}


def _result(one: Accepted | UserError) -> dict[str, Any]:
    if isinstance(one, UserError):
        return of_error(one)
    return {"status": 200 if one.duplicate else 201, **_accepted(one)}


def _body(name: str, key: bool = False) -> dict[str, Any]:
    """How the description of the API tells a body, which is read by us."""
    told: dict[str, Any] = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}},
        }
    }
    if key:
        text = {"type": "string", "minLength": 1, "maxLength": 255}
        told["parameters"] = [{"name": "Idempotency-Key", "in": "header", "required": False, "schema": text}]
    return told


def _says(status: int, description: str, name: str) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {status: {"description": description, "content": content}}
