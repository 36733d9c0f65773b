"""Answers as JSON: times in ISO 8601, ids as text."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from starlette.responses import Response


def dumped(value: Any) -> bytes:
    """JSON in UTF-8."""
    return json.dumps(value, default=_jsonable, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "backslashreplace"
    )


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(dumped(value), status, dict(headers or {}), "application/json")


def _jsonable(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")
