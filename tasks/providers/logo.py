"""A provider's logo: what it is by its content, never by its file's name.

Each format is walked far enough that a file which only begins like a picture is refused. SVG may hold
scripts: it is stored as it is, and whoever serves it must forbid them.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.parsers import expat

from config.errors import UserError
from tasks.access import quoted

LOGO_BYTES: Final = 256 * 1024

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_SVG_ROOT: Final = "http://www.w3.org/2000/svg svg"


@dataclass(frozen=True, slots=True)
class Logo:
    """A checked picture and its media type."""

    content: bytes = field(repr=False)
    type: str


def read_logo(path: Path) -> bytes:
    """A file's bytes, at most one more than a logo may have. Raises `UserError` naming the file."""
    try:
        with path.open("rb") as file:
            return file.read(LOGO_BYTES + 1)
    except OSError as error:
        raise UserError(f"the logo {quoted(str(path))} cannot be read: {error.strerror}.") from None


def check_logo(content: bytes) -> Logo:
    """Raises `UserError` for what is too large or not whole PNG, JPEG, GIF, WebP or SVG."""
    if len(content) > LOGO_BYTES:
        raise UserError("the logo must have at most 256 KiB. Give a smaller picture.")
    if content.startswith(_PNG):
        whole, media = _is_png(content), "image/png"
    elif content.startswith(b"\xff\xd8\xff"):
        whole, media = _is_jpeg(content), "image/jpeg"
    elif content.startswith((b"GIF87a", b"GIF89a")):
        whole, media = _is_gif(content), "image/gif"
    elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        whole, media = _is_webp(content), "image/webp"
    elif content.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0").startswith(b"<"):
        _check_svg(content)
        return Logo(content, "image/svg+xml")
    else:
        raise UserError(
            "the logo must be PNG, JPEG, GIF, WebP or SVG by its content, and this is none of them."
        )
    if not whole:
        raise UserError(f"the logo begins like {media} but is damaged or cut off. Give a whole picture.")
    return Logo(content, media)


def _is_png(content: bytes) -> bool:
    """Chunks with right checksums, IHDR first, IDAT, IEND last (PNG §5)."""
    place = len(_PNG)
    kinds: list[bytes] = []
    while place + 12 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        end = place + 12 + size
        if end > len(content):
            return False
        kind = content[place + 4 : place + 8]
        checksum = int.from_bytes(content[end - 4 : end], "big")
        if zlib.crc32(content[place + 4 : end - 4]) != checksum:
            return False
        if not kinds and (kind != b"IHDR" or size != 13 or not _nonzero(content[place + 8 : place + 16], 4)):
            return False
        kinds.append(kind)
        place = end
        if kind == b"IEND":
            return b"IDAT" in kinds
    return False


def _is_jpeg(content: bytes) -> bool:
    """Marker segments up to the first scan, a frame header among them, then an end (ITU T.81 B.1)."""
    place, framed = 2, False
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        size = int.from_bytes(content[place + 2 : place + 4], "big")
        if size < 2:
            return False
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            framed = True
        place += 2 + size
        if marker == 0xDA:
            return framed and content.find(b"\xff\xd9", place) > 0
    return False


def _is_gif(content: bytes) -> bool:
    """The blocks up to the trailer, an image among them (GIF89a §16 to §27)."""
    if len(content) < 13 or not _nonzero(content[6:10], 2):
        return False
    place = 13 + _colours(content[10])
    pictured = False
    while place < len(content):
        kind = content[place]
        if kind == 0x3B:
            return pictured
        if kind == 0x21:
            place += 2
        elif kind == 0x2C and place + 10 < len(content):
            place += 10 + _colours(content[place + 9]) + 1
            pictured = True
        else:
            return False
        while place < len(content) and content[place]:
            place += 1 + content[place]
        place += 1
    return False


def _colours(packed: int) -> int:
    """Bytes of the colour table that a packed field announces."""
    return 3 * 2 ** ((packed & 7) + 1) if packed & 0x80 else 0


def _is_webp(content: bytes) -> bool:
    """A RIFF of the right length whose chunks hold a picture (RFC 9649 §2)."""
    if int.from_bytes(content[4:8], "little") + 8 > len(content):
        return False
    place, pictured = 12, False
    while place + 8 <= len(content):
        kind = content[place : place + 4]
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        if place + 8 + size > len(content):
            return False
        pictured = pictured or (kind in (b"VP8 ", b"VP8L", b"ANMF") and size >= 5)
        place += 8 + size + size % 2
    return pictured


def _nonzero(dimensions: bytes, width: int) -> bool:
    """Whether two numbers of ``width`` bytes each, side by side, are both above zero."""
    return any(dimensions[:width]) and any(dimensions[width : 2 * width])


def _check_svg(content: bytes) -> None:
    """Well-formed XML without a document type, and so without entities, whose root is svg."""
    roots: list[str] = []

    def started(name: str, _attributes: object) -> None:
        if not roots:
            roots.append(name)

    def typed(*_words: object) -> None:
        raise UserError(
            "the logo is SVG with a document type or entities, which are refused. "
            "Remove its <!DOCTYPE …> and give it again."
        )

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = started
    parser.StartDoctypeDeclHandler = typed
    parser.EntityDeclHandler = typed
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: odd encodings
        where = f" (line {error.lineno})" if isinstance(error, expat.ExpatError) else ""
        raise UserError(
            f"the logo looks like SVG but is not well-formed XML{where}. "
            "It must be PNG, JPEG, GIF, WebP or SVG."
        ) from None
    if roots != [_SVG_ROOT]:
        raise UserError(
            'the logo is XML but its root is no <svg xmlns="http://www.w3.org/2000/svg">. '
            "It must be PNG, JPEG, GIF, WebP or SVG."
        )
