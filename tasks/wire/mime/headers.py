"""Header blocks (RFC 5322 §2.2): found with `bytes.find`, unfolded and cut by one regular expression.

Values stay raw here: bytes as Latin-1, unfolded, ends stripped. `words.unicode_of` reads them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tasks.wire.bulk import Raw
from tasks.wire.mime import values as v
from tasks.wire.mime.values import Limits

# RFC 5322 §3.6.8; §4.5.8 allows space before the colon.
_FIELDS = re.compile(r"^([!-9;-~]++)[ \t]*+:[ \t]*+(.*+)", re.MULTILINE)
_FIRST = re.compile(rb"[!-9;-~]*[ \t]*:|From ")
_LINE = re.compile(r"[^\r\n]*+(?:\r\n|\n|\r|\Z)")
_NAME = re.compile(r"([!-9;-~]*)[ \t]*:[ \t]*")
_LONE_CR = re.compile(r"\r(?!\n)")


class Block(NamedTuple):
    """One header block and where its body begins."""

    fields: list[tuple[str, str]]
    body: int
    defects: tuple[str, ...] = ()


def read_block(raw: Raw, start: int, end: int, limits: Limits) -> Block:
    """Read the header block at ``raw[start:end]``; the body runs from ``Block.body`` to ``end``."""
    at = raw.find(b"\r\n\r\n", start, min(end, start + limits.header_bytes))
    if at > start and (usual := _usual(raw[start:at])):
        return Block(usual, at + 4)
    if start >= end:
        return Block([], start)
    first = raw[start]
    if first == 10:
        return Block([], start + 1)
    if first == 13:
        return Block([], start + 2 if raw[start + 1 : min(start + 2, end)] == b"\n" else start + 1)
    if not _FIRST.match(raw, start, end) and first not in b" \t":
        return Block([], start, (v.HEADERS_UNENDED,))
    stop, body, defects = _extent(raw, start, end)
    if stop - start > limits.header_bytes:
        stop = raw.rfind(b"\n", start, start + limits.header_bytes) + 1 or start + limits.header_bytes
        defects = (*defects, v.HEADERS_TRUNCATED)
    text = raw[start:stop].decode("latin-1")
    if "\r" in text:
        if "\n" not in text:
            return _by_line(text, start, body, defects)
        flat = text.replace("\r\n", "\n")
        # A lone CR is no line end (RFC 5322 §2.3), only a stray space.
        flat = flat.replace("\r", " ") if "\r" in flat else flat
    else:
        flat = text
    flat = flat.rstrip("\n").replace("\n ", " ").replace("\n\t", "\t")
    fields = _FIELDS.findall(flat)
    if len(fields) != flat.count("\n") + 1:
        return _by_line(_LONE_CR.sub(" ", text), start, body, defects)
    return Block(fields, body, defects)


def _usual(block: bytes) -> list[tuple[str, str]] | None:
    """The fields of a block in which all lines end in CRLF, and all are fields."""
    lines = block.decode("latin-1").split("\r\n")
    flat = "\n".join(lines)
    if "\r" in flat or flat.count("\n") >= len(lines):
        return None
    if "\n " in flat or "\n\t" in flat:
        flat = flat.replace("\n ", " ").replace("\n\t", "\t")
    fields = _FIELDS.findall(flat)
    return fields if len(fields) == flat.count("\n") + 1 else None


def _extent(raw: Raw, start: int, end: int) -> tuple[int, int, tuple[str, ...]]:
    """Return where the fields end and the body begins: the first empty line, of CRLF or LF."""
    line = raw.find(b"\n", start, end)
    if line < 0:
        blank = raw.find(b"\r\r", start, end)
        return (blank + 1, blank + 2, ()) if blank >= 0 else (end, end, (v.HEADERS_UNENDED,))
    first, second = (b"\n\r\n", b"\n\n") if raw[line - 1] == 13 and line > start else (b"\n\n", b"\n\r\n")
    found, length = raw.find(first, line, end), len(first)
    other = raw.find(second, line, end if found < 0 else found)
    if other >= 0:
        found, length = other, len(second)
    if found < 0:
        return end, end, (v.HEADERS_UNENDED,)
    return found + 1, found + length, ()


def _by_line(text: str, start: int, body: int, defects: tuple[str, ...]) -> Block:
    """Read a block that holds something other than fields: the first such line begins the body.

    Mbox "From " lines, fields without a name and a leading continuation are passed over.
    """
    fields: list[tuple[str, str]] = []
    name: str | None = None
    lines: list[str] = []
    position = 0

    def finish() -> None:
        if name:
            value = lines[0] + "".join(lines[1:])
            fields.append((name, value.rstrip("\r\n").replace("\r", "").replace("\n", "")))

    while position < len(text):
        match = _LINE.match(text, position)
        line = match[0] if match else text[position:]
        bare = line.rstrip("\r\n")
        if not bare:
            body = min(body, start + position + len(line))
            break
        if line[0] in " \t":
            lines.append(line)
        elif bare.startswith("From ") and (position == 0 or not _is_last(text, position + len(line))):
            finish()
            name = None
        elif field := _NAME.match(line):
            finish()
            name = field[1] or None
            lines = [line[field.end() :]]
        else:
            body = start + position
            defects = (*defects, v.HEADERS_UNENDED)
            break
        if name is None:
            defects = (*defects, v.HEADER_MALFORMED) if v.HEADER_MALFORMED not in defects else defects
        position += len(line)
    finish()
    return Block(fields, body, defects)


def _is_last(text: str, position: int) -> bool:
    return position >= len(text) or text[position] in "\r\n"
