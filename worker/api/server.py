"""The HTTP process: the API over the engines, told as OpenAPI 3.1 at ``/v1/openapi.json``."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from socket import socket
from typing import Any, Final

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from config.errors import UserError
from config.settings import Settings
from tasks.outbound.tasks import wake
from worker.api import health, outbox, problems
from worker.api.door import Door
from worker.app import make_app

GRACE: Final = 30
"""Seconds that what was begun may take after SIGTERM."""
IDLE: Final = 60
"""Seconds that a connection may rest between two requests."""

_log = structlog.get_logger()


def make_api(settings: Settings, ring: Callable[[], None]) -> FastAPI:
    """The API; ``ring`` wakes the dispatcher. Raises `UserError` where no database is set."""
    door = Door(settings, ring)

    @asynccontextmanager
    async def life(api: FastAPI) -> AsyncIterator[None]:
        yield
        door.close()

    api = FastAPI(
        title="mailwright",
        version=version("mailwright"),
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=life,
    )
    problems.install(api)
    api.include_router(health.routes(door))
    api.include_router(outbox.routes(door))
    api.openapi = lambda: described(api)  # type: ignore[method-assign]
    return api


def described(api: FastAPI) -> dict[str, Any]:
    """The description of the API, with the schema of a message, problems and keys."""
    if api.openapi_schema is None:
        told = get_openapi(
            title=api.title,
            version=api.version,
            summary="Puts mail into queues and tells what became of it.",
            routes=api.routes,
        )
        parts = told.setdefault("components", {})
        parts.setdefault("schemas", {}).update(outbox.schemas())
        for unused in ("HTTPValidationError", "ValidationError"):
            parts["schemas"].pop(unused, None)
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        problem = {
            "description": "A problem (RFC 9457)",
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for path, methods in told["paths"].items():
            for operation in methods.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = problem
                if path.startswith("/v1/"):
                    operation["security"] = [{"key": []}]
        api.openapi_schema = told
    return api.openapi_schema


def make_server(
    settings: Settings, ring: Callable[[], None], address: str, port: int
) -> tuple[uvicorn.Server, socket]:
    """A server and the socket to run it on; port 0 is a free one. Raises `UserError` where the address cannot
    be had."""
    config = uvicorn.Config(
        make_api(settings, ring),
        host=address,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=GRACE,
    )
    try:
        return uvicorn.Server(config), config.bind_socket()
    except SystemExit:
        raise UserError(
            f"cannot listen on {address}, port {port}: it is taken, or not an address of this machine. "
            "Choose another: MAILWRIGHT_HTTP_ADDRESS, MAILWRIGHT_HTTP_PORT."
        ) from None


def serve(settings: Settings, address: str, port: int) -> None:
    """Answer requests until SIGTERM or SIGINT. Raises `UserError` where the address cannot be had."""
    make_app(settings)
    server, listening = make_server(settings, wake, address, port)
    _log.info("http.listening", address=address, port=listening.getsockname()[1])
    server.run([listening])
