"""Whether the process lives, and whether it can do its work."""

from fastapi import APIRouter, Response

from schema import migrations
from schema.database import SchemaMissing
from worker.api.answers import answer
from worker.api.door import Door


def routes(door: Door) -> APIRouter:
    """``/healthz`` and ``/readyz``; neither needs a key."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="The process lives")
    async def healthz() -> Response:
        return answer({"status": "alive"})

    @router.get("/readyz", summary="The database is there, at this version's schema")
    async def readyz() -> Response:
        current = await door.thread(lambda: migrations.current(door.db.engine))
        if current != migrations.head():
            raise SchemaMissing("the database is not at this version's schema. Run `mailwright db upgrade`.")
        return answer({"status": "ready"})

    return router
