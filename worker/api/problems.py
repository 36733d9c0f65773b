"""What goes wrong, told as problem+json (RFC 9457): for every error one clear answer, never a traceback.

``code`` is the error code that all doors share; ``detail`` the sentence that the command line would print.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from config.errors import (
    Conflict,
    MailwrightError,
    NotFound,
    PermissionDenied,
    TransientError,
    UserError,
)
from schema.database import SchemaMissing
from tasks.access import Unauthenticated
from tasks.outbound.errors import REFUSALS, MessageTooBig
from worker.api.answers import dumped

MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 2
"""What a client is told to wait where time will help."""
LONGEST_DETAIL: Final = 1000

_log = structlog.get_logger()


class BodyRefused(UserError):
    """The body of a request cannot be taken: not JSON, not complete, not of the right type."""

    code = "body_invalid"
    status = 400

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.status = status


class ParameterRefused(UserError):
    """A parameter in the address of a request cannot be."""

    code = "parameter_invalid"


class TooBusy(TransientError):
    """More requests at once than this process has room for."""

    code = "too_busy"


CODES: Final = (
    *REFUSALS, "unauthenticated", "scope_missing", "body_invalid", "parameter_invalid", "not_found",
    "conflict", "method_not_allowed", "too_busy", "database_down", "schema_missing", "internal",
)  # fmt: skip
"""What ``code`` may be: the refusals of every door, and what only this one knows."""


def status_of(error: MailwrightError) -> int:
    """The HTTP status of an error of ours."""
    match error:
        case BodyRefused():
            return error.status
        case Unauthenticated():
            return 401
        case PermissionDenied():
            return 403
        case NotFound():
            return 404
        case Conflict():
            return 409
        case MessageTooBig():
            return 413
        case SchemaMissing() | TransientError():
            return 503
        case UserError():
            return 400
        case _:
            return 500


def problem(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """One problem as a response."""
    more = dict(headers or {})
    if status == 401:
        more["WWW-Authenticate"] = 'Bearer realm="mailwright"'
    if status == 503:
        more["Retry-After"] = str(RETRY_SECONDS)
    if status in (408, 413, 503):
        more["Connection"] = "close"  # what is left of the body is not read
    return Response(dumped(facts(status, code, detail)), status, more, MEDIA_TYPE)


def facts(status: int, code: str, detail: str) -> dict[str, Any]:
    """The members of a problem."""
    return {
        "type": f"urn:mailwright:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": plain(detail),
    }


def of_error(error: MailwrightError) -> dict[str, Any]:
    """The members of a problem that an error of ours is."""
    return facts(status_of(error), error.code, str(error))


def plain(text: str) -> str:
    """A sentence on one line, whatever somebody put into it."""
    line = " ".join(text[: LONGEST_DETAIL * 2].split())[:LONGEST_DETAIL]
    return "".join(c if c.isprintable() else "?" for c in line)


def install(api: FastAPI) -> None:
    """Let every error of ``api`` end as a problem."""

    @api.exception_handler(MailwrightError)
    async def ours(request: Request, error: MailwrightError) -> Response:
        return problem(status_of(error), error.code, str(error))

    @api.exception_handler(RequestValidationError)
    async def parameters(request: Request, error: RequestValidationError) -> Response:
        fault = error.errors()[0]
        name = str(fault["loc"][-1]) if fault["loc"] else "the request"
        return problem(400, "parameter_invalid", f"{name}: {fault['msg']}.")

    @api.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http")
        said = {404: f"there is nothing at {request.url.path}.", 405: f"{request.method} is not for this."}
        detail = said.get(error.status_code, str(error.detail))
        return problem(error.status_code, code, f"{detail} See /v1/openapi.json.", error.headers)

    @api.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return problem(500, "internal", "unexpected; this is a fault of mailwright itself. Its log has more.")
