"""The tree of parts (RFC 2046 §5.1) as byte ranges of the raw mail; nothing is copied or decoded here.

An outer boundary ends whatever is open inside it, so each multipart is searched only within the range that
its parent gave it, and the time taken is at most depth times size. A message inside the message
(message/rfc822) is one leaf: opening it is a second `read` of its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from tasks.wire.bulk import Raw
from tasks.wire.mime import values as v
from tasks.wire.mime.charsets import clean
from tasks.wire.mime.headers import read_block
from tasks.wire.mime.params import parse_params, text_param, token_param
from tasks.wire.mime.values import Limits

MAX_BOUNDARY: Final = 1000
MAX_FIELD: Final = 64 * 1024
MAX_NAME: Final = 1000
FALSE_HITS_A_PART: Final = 50
REPEATED: Final = 200
"""Bytes of a header that is worth remembering: parts of text have few different ones, in nearly all mail."""
CONTENT: Final = frozenset(("content-type", "content-transfer-encoding", "content-disposition", "content-id"))
"""The fields that a walk needs, of the message and of each part."""
_ENCODINGS = frozenset(("", "7bit", "8bit", "binary", "base64", "quoted-printable"))
_TAIL = re.compile(rb"(--)?[ \t]*+(\r\n|\n|\r|\Z)")
_TOKEN = re.compile(r"[^\s;()\"]*")
_LIMITS = Limits()


class Head(NamedTuple):
    """What the header of a part says of its body."""

    content_type: str | None
    """None where it does not say."""
    charset: str | None
    boundary: str
    encoding: str
    disposition: str | None
    name: str | None
    content_id: str | None
    """As it stands there: raw, bytes as Latin-1."""


class Leaf(NamedTuple):
    """One part without parts: where its body lies, and what its header says of it."""

    path: str
    content_type: str
    head: Head
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

    def __init__(self, raw: Raw, limits: Limits) -> None:
        self.raw = raw
        self.limits = limits
        self.leaves: list[Leaf] = []
        self.defects: dict[str, None] = {}
        self.entities = 0
        self.short = min(REPEATED, limits.header_bytes)

    def enter(self, head: Head, start: int, end: int, place: Place) -> str:
        """Walk the part whose body is ``raw[start:end]``; return its content type."""
        self.entities += 1
        content_type = head.content_type or ("message/rfc822" if place.parent == "digest" else "text/plain")
        if not content_type.startswith("multipart/"):
            self._leaf(content_type, head, start, end, place)
        elif place.depth >= self.limits.depth:
            self.defects[v.TOO_DEEP] = None
            self._leaf("application/octet-stream", _plain(head), start, end, place)
        elif not head.boundary or len(head.boundary) > MAX_BOUNDARY:
            self.defects[v.BOUNDARY_MISSING] = None
            self._leaf("text/plain", _plain(head), start, end, place)
        elif not self._parts(head.boundary, content_type[10:], start, end, place):
            self.defects[v.BOUNDARY_NOT_FOUND] = None
            self._leaf("text/plain", _plain(head), start, end, place)
        return content_type

    def _leaf(self, content_type: str, head: Head, start: int, end: int, place: Place) -> None:
        self.leaves.append(Leaf(place.path or "1", content_type, head, start, end, place.parent, place.nth))

    def _parts(self, boundary: str, subtype: str, start: int, end: int, place: Place) -> bool:
        prefix = place.path + "." if place.path else ""
        index = -1
        for index, (begin, stop) in enumerate(self._ranges(boundary, start, end)):
            if self.entities >= self.limits.parts:
                self.defects[v.TOO_MANY_PARTS] = None
                break
            head, body = self._head(begin, stop)
            self.enter(head, body, stop, Place(f"{prefix}{index + 1}", place.depth + 1, subtype, index))
        return index >= 0

    def _head(self, begin: int, stop: int) -> tuple[Head, int]:
        """Read the header of a part, and where its body begins."""
        at = self.raw.find(b"\r\n\r\n", begin, min(stop, begin + self.short))
        if at >= 0 and (head := _short_head(self.raw[begin : at + 4])):
            return head, at + 4
        block = read_block(self.raw, begin, stop, self.limits)
        for defect in block.defects:
            self.defects[defect] = None
        return head_of(_content(block.fields)), block.body

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


def head_of(fields: Mapping[str, str]) -> Head:
    """What these fields (raw values by lower-case name) say of a body."""
    content_type, encoding = fields.get("content-type"), fields.get("content-transfer-encoding")
    disposition, content_id = fields.get("content-disposition"), fields.get("content-id")
    if (
        not (disposition or content_id)
        and content_type
        and len(content_type) <= REPEATED
        and len(encoding or "") <= REPEATED
        and "boundary" not in content_type
    ):
        return _remembered(content_type, encoding, None, None)
    return _head(content_type, encoding, disposition, content_id)


def _head(
    content_type: str | None, encoding: str | None, disposition: str | None, content_id: str | None
) -> Head:
    charset, boundary, name = None, "", None
    if disposition:
        disposition, params = parse_params(disposition[:MAX_FIELD])
        name = text_param(params, "filename")
    if content_type is not None:
        content_type, params = parse_params(content_type[:MAX_FIELD])
        if content_type.count("/") != 1:
            content_type = "text/plain"  # RFC 2045 §5.2
        if params:
            charset = token_param(params, "charset")
            boundary = (token_param(params, "boundary") or "").rstrip()
            if name is None:
                name = text_param(params, "name")
    if name is not None:
        name = clean(" ".join(name.split("\n"))).strip()[:MAX_NAME] or None
    encoding = (encoding or "").strip().lower()
    if encoding not in _ENCODINGS and (match := _TOKEN.match(encoding)):
        encoding = match[0]
    return Head(content_type, charset, boundary, encoding, disposition or None, name, content_id)


_remembered = lru_cache(maxsize=512)(_head)


@lru_cache(maxsize=512)
def _short_head(block: bytes) -> Head | None:
    """The head of a part whose whole header this is, None where it is not so plain."""
    found = read_block(block, 0, len(block), _LIMITS)
    return None if found.defects or found.body != len(block) else head_of(_content(found.fields))


def _content(fields: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in fields:
        lower = name.lower()
        if lower in CONTENT:
            found.setdefault(lower, value)
    return found


def _plain(head: Head) -> Head:
    """The same without what its Content-Type says of text."""
    return head._replace(charset=None, boundary="")


def _without_line_end(raw: Raw, start: int, end: int) -> int:
    if end > start and raw[end - 1] == 10:
        end -= 1
    elif end > start and raw[end - 1] == 13:
        return end - 1
    else:
        return end
    return end - 1 if end > start and raw[end - 1] == 13 else end
