"""The tree of parts (RFC 2046 §5.1) as byte ranges of the raw mail; nothing is copied or decoded here.

An outer boundary ends whatever is open inside it, so each multipart is searched only within the range that
its parent gave it, and the time taken is at most depth times size. A message inside the message
(message/rfc822) is one leaf: opening it is a second `read` of its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tasks.wire.mime import values as v
from tasks.wire.mime.headers import read_block
from tasks.wire.mime.params import parse_params, token_param
from tasks.wire.mime.values import Limits

MAX_BOUNDARY = 1000
MAX_FIELD = 64 * 1024
FALSE_HITS_A_PART = 50
_TAIL = re.compile(rb"(--)?[ \t]*+(\r\n|\n|\r|\Z)")
ENCODINGS = frozenset(("", "7bit", "8bit", "binary", "base64", "quoted-printable"))
_TOKEN = re.compile(r"[^\s;()\"]*")
Kind = tuple[str, dict[str, str]]
NO_PARAMS: dict[str, str] = {}
CONTENT = frozenset(("content-type", "content-transfer-encoding", "content-disposition", "content-id"))
"""The fields that a walk needs, of the message and of each part."""


class Leaf(NamedTuple):
    """One part without parts: where its body lies, and what its header says of it."""

    path: str
    content_type: str
    params: dict[str, str]
    encoding: str
    disposition: str | None
    disposition_params: dict[str, str]
    content_id: str | None
    start: int
    end: int
    parent: str
    """Subtype of the multipart around it, empty for the message itself."""
    nth: int
    """Place among its siblings, from 0."""


class Place(NamedTuple):
    """Where a part stands in the tree."""

    path: str = ""
    depth: int = 0
    parent: str = ""
    nth: int = 0


class Walk:
    """One walk over the tree: collects leaves in order, and the defects met."""

    def __init__(self, raw: bytes, limits: Limits) -> None:
        self.raw = raw
        self.limits = limits
        self.leaves: list[Leaf] = []
        self.defects: dict[str, None] = {}
        self.entities = 0

    def enter(self, fields: dict[str, str], start: int, end: int, place: Place) -> str:
        """Walk the part whose body is ``raw[start:end]``; return its content type."""
        self.entities += 1
        declared = fields.get("content-type")
        if declared is None:
            content_type, params = "message/rfc822" if place.parent == "digest" else "text/plain", NO_PARAMS
        else:
            content_type, params = parse_params(declared[:MAX_FIELD])
            if content_type.count("/") != 1:
                content_type = "text/plain"  # RFC 2045 §5.2
        if content_type.startswith("multipart/"):
            boundary = (token_param(params, "boundary") or "").rstrip()
            if place.depth >= self.limits.depth:
                self.defects[v.TOO_DEEP] = None
                self._leaf(fields, ("application/octet-stream", NO_PARAMS), start, end, place)
            elif not boundary or len(boundary) > MAX_BOUNDARY:
                self.defects[v.BOUNDARY_MISSING] = None
                self._leaf(fields, ("text/plain", NO_PARAMS), start, end, place)
            elif not self._parts(boundary, content_type[10:], start, end, place):
                self.defects[v.BOUNDARY_NOT_FOUND] = None
                self._leaf(fields, ("text/plain", NO_PARAMS), start, end, place)
        else:
            self._leaf(fields, (content_type, params), start, end, place)
        return content_type

    def _parts(self, boundary: str, subtype: str, start: int, end: int, place: Place) -> bool:
        prefix = place.path + "." if place.path else ""
        index = -1
        for index, (begin, stop) in enumerate(self._ranges(boundary, start, end)):
            if self.entities >= self.limits.parts:
                self.defects[v.TOO_MANY_PARTS] = None
                break
            block = read_block(self.raw, begin, stop, self.limits)
            for defect in block.defects:
                self.defects[defect] = None
            fields: dict[str, str] = {}
            for name, value in block.fields:
                lower = name.lower()
                if lower in CONTENT:
                    fields.setdefault(lower, value)
            child = Place(f"{prefix}{index + 1}", place.depth + 1, subtype, index)
            self.enter(fields, block.body, stop, child)
        return index >= 0

    def _ranges(self, boundary: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        raw = self.raw
        needle = b"\n--" + boundary.encode("latin-1", "replace")
        if raw.find(needle, start, end) < 0 and raw.find(b"\n", start, end) < 0:
            needle = b"\r" + needle[1:]  # a mail whose lines end in CR alone
        length, opened, misses = len(needle), -1, self.limits.parts * FALSE_HITS_A_PART
        position = start - 1 if raw.startswith(needle[1:], start, end) else raw.find(needle, start, end)
        while position >= 0 and misses:
            tail = _TAIL.match(raw, position + length, end)
            if tail is None:
                misses -= 1
                position = raw.find(needle, position + length, end)
                continue
            if opened >= 0 and position >= opened:
                yield (
                    opened,
                    position - (raw[position - 1] == 13 and position > opened and raw[position] == 10),
                )
            if tail[1]:
                if opened < 0:
                    return
                opened = -1
                break
            opened = tail.end()
            position = raw.find(needle, opened - 1, end)
        if not misses:
            self.defects[v.TOO_MANY_PARTS] = None
        if opened >= 0:
            self.defects[v.BOUNDARY_NOT_CLOSED] = None
            yield opened, _without_line_end(raw, opened, end) if end == len(raw) else end

    def _leaf(self, fields: dict[str, str], kind: Kind, start: int, end: int, place: Place) -> None:
        content_type, params = kind
        disposition, disposition_params = None, NO_PARAMS
        if written := fields.get("content-disposition"):
            disposition, disposition_params = parse_params(written[:MAX_FIELD])
        encoding = fields.get("content-transfer-encoding", "").strip().lower()
        if encoding not in ENCODINGS and (match := _TOKEN.match(encoding)):
            encoding = match[0]
        self.leaves.append(
            Leaf(
                place.path or "1",
                content_type,
                params,
                encoding,
                disposition,
                disposition_params,
                fields.get("content-id"),
                start,
                end,
                place.parent,
                place.nth,
            )
        )


def _without_line_end(raw: bytes, start: int, end: int) -> int:
    if end > start and raw[end - 1] == 10:
        end -= 1
    elif end > start and raw[end - 1] == 13:
        return end - 1
    else:
        return end
    return end - 1 if end > start and raw[end - 1] == 13 else end
