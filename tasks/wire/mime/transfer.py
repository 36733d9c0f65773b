"""Content-Transfer-Encoding (RFC 2045 §6) undone by the C decoders; big parts take little memory."""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pybase64

from tasks.wire.bulk import WINDOW, Raw, windows
from tasks.wire.mime import values as v

LARGE = 2 << 20
"""Bytes above which a part is decoded window by window."""
_LONG_LINE = 4 << 20
_IDENTITY = frozenset(("", "7bit", "8bit", "binary"))
_UUENCODED = frozenset(("x-uuencode", "uuencode", "uue", "x-uue"))
_NOT_BASE64 = bytes(
    sorted(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
)
_BASE64_LINES = re.compile(rb"[A-Za-z0-9+/=\r\n]*+")
_PADDING = re.compile(rb"=+")
_UU_BEGIN = re.compile(rb"begin[ \t]+[0-7]{3,4}[ \t]+[^\r\n]*(?:\r?\n|\Z)")

Take = Callable[[bytes], object]
"""Takes the next decoded piece."""


class Decoded(NamedTuple):
    """Decoded bytes; ``defect`` says what could not be trusted; the bytes are then what was saved."""

    data: bytes
    defect: str | None = None


class Digested(NamedTuple):
    """What is stored of a part: bytes, SHA-256, defect."""

    size: int
    digest: bytes
    defect: str | None


def decode_transfer(data: bytes, encoding: str) -> Decoded:
    """Decode one part's body. Unknown encodings are identity (RFC 2045 §6.4), with a defect."""
    if encoding in _IDENTITY:
        return Decoded(data)
    if encoding == "quoted-printable":
        return Decoded(binascii.a2b_qp(data))
    if encoding == "base64":
        return _base64(data)
    if encoding in _UUENCODED:
        decoded = bytearray()
        try:
            defect = _uuencode(data, 0, len(data), decoded.extend)
        except _AsItIs as found:
            return Decoded(data, found.defect)
        return Decoded(bytes(decoded), defect)
    return Decoded(data, v.ENCODING_UNKNOWN)


def digest_transfer(raw: Raw, start: int, end: int, encoding: str) -> Digested:
    """Return size and digest of ``raw[start:end]`` decoded; a large part is never decoded as a whole."""
    if end - start <= LARGE:
        decoded, defect = decode_transfer(raw[start:end], encoding)
        return Digested(len(decoded), hashlib.sha256(decoded).digest(), defect)
    sink = _Sink()
    try:
        return sink.digested(_stream(raw, start, end, encoding, sink.take))
    except _AsItIs as found:
        sink = _Sink()
        for piece in windows(raw, start, end):
            sink.take(piece)
        return sink.digested(found.defect)


class _Sink:
    """What was decoded so far, as its size and digest."""

    def __init__(self) -> None:
        self._size = 0
        self._digest = hashlib.sha256()

    def take(self, piece: bytes) -> None:
        self._size += len(piece)
        self._digest.update(piece)

    def digested(self, defect: str | None) -> Digested:
        return Digested(self._size, self._digest.digest(), defect)


class _AsItIs(Exception):
    """The part is not to be decoded."""

    def __init__(self, defect: str | None) -> None:
        super().__init__(defect)
        self.defect = defect


def _stream(raw: Raw, start: int, end: int, encoding: str, take: Take) -> str | None:
    """Give ``take`` piece by piece what `decode_transfer` gives; return the defect."""
    if encoding == "quoted-printable":
        _stream_quoted(raw, start, end, take)
        return None
    if encoding == "base64":
        return _stream_base64(raw, start, end, take)
    if encoding in _UUENCODED:
        return _uuencode(raw, start, end, take)
    raise _AsItIs(None if encoding in _IDENTITY else v.ENCODING_UNKNOWN)


def _base64(data: bytes) -> Decoded:
    try:
        return Decoded(_unbase64(data))
    except binascii.Error:
        clean = data.translate(None, _NOT_BASE64)
    try:
        return Decoded(binascii.a2b_base64(clean + b"=="), v.BASE64_BROKEN)
    except binascii.Error:
        # One character too many, six bits of no byte. Cut-off base64 gives the rest; other text stays.
        if _BASE64_LINES.fullmatch(data):
            return Decoded(binascii.a2b_base64(clean.replace(b"=", b"")[:-1] + b"=="), v.BASE64_BROKEN)
        return Decoded(data, v.BASE64_BROKEN)


def _unbase64(data: bytes) -> bytes:
    """As `binascii.a2b_base64`, several times as fast where padding comes last."""
    padding = data.find(b"=")
    if padding >= 0 and data[padding:].strip(b"=\r\n"):
        return binascii.a2b_base64(data)  # what follows padding is no more of it
    return pybase64.b64decode(data)


def _stream_base64(raw: Raw, start: int, end: int, take: Take) -> str | None:
    """As `_base64`: padding that completes four characters ends it, other padding is passed over."""
    carry = b""
    for piece in windows(raw, start, end):
        clean = carry + piece.translate(None, _NOT_BASE64)
        waiting = b""
        if b"=" in clean:
            clean, ended = _unpadded(clean)
            if ended:
                take(binascii.a2b_base64(clean + b"=="))
                return None
            if clean.endswith(b"="):  # and another may follow
                clean, waiting = clean[:-1], b"="
        whole = len(clean) & ~3
        take(pybase64.b64decode(clean[:whole]))
        carry = clean[whole:] + waiting
    carry = carry.rstrip(b"=")
    if not carry:
        return None
    if len(carry) > 1:
        take(binascii.a2b_base64(carry + b"=="))
    elif not all(_BASE64_LINES.fullmatch(piece) for piece in windows(raw, start, end)):
        raise _AsItIs(v.BASE64_BROKEN)
    return v.BASE64_BROKEN


def _unpadded(clean: bytes) -> tuple[bytes, bool]:
    """Base64 up to the padding that ends it, or all without padding, but for one at its end that may be half
    of it; and whether it is ended."""
    kept = bytearray()
    at = 0
    for padding in _PADDING.finditer(clean):
        kept += clean[at : padding.start()]
        at = padding.end()
        partial = len(kept) & 3
        if partial + at - padding.start() >= 4 and partial >= 2:
            return bytes(kept), True
        if partial == 2 and at == len(clean):
            kept += b"="
    return bytes(kept + clean[at:]), False


def _stream_quoted(raw: Raw, start: int, end: int, take: Take) -> None:
    """Cut after line ends, where the decoder keeps no state."""
    carry = b""
    for piece in windows(raw, start, end):
        chunk = carry + piece
        cut = chunk.rfind(b"\n") + 1
        if len(chunk) - cut > _LONG_LINE:  # one line without end: decode what is there, at a safe place
            cut = len(chunk) - 3
            while chunk.rfind(b"=", cut, cut + 3) >= 0:
                cut -= 3
        take(binascii.a2b_qp(chunk[:cut]))
        carry = chunk[cut:]
    take(binascii.a2b_qp(carry))


def _uuencode(raw: Raw, start: int, end: int, take: Take) -> str | None:
    """Decode what follows the line with ``begin``; raises `_AsItIs` where there is none."""
    lines = _lines(raw, start, end)
    if not any(_UU_BEGIN.match(line) for line in lines):
        raise _AsItIs(v.UUENCODE_BROKEN)
    defect, size = None, 0
    for full in lines:
        line = full.rstrip(b"\r\n")
        if size > end - start:  # counts that promise more than their lines hold are filled with zeros
            return v.UUENCODE_BROKEN
        if line.strip(b" \t\r\n\f") == b"end":
            return defect
        try:
            decoded = binascii.a2b_uu(line)
        except binascii.Error:
            # Encoders that pad oddly: trust the line's own count (as the standard decoder does).
            length = (((line[0] - 32) & 63) * 4 + 5) // 3 if line else 0
            try:
                decoded = binascii.a2b_uu(line[:length])
            except binascii.Error:
                defect, decoded = v.UUENCODE_BROKEN, b""
        size += len(decoded)
        take(decoded)
    return v.UUENCODE_BROKEN


def _lines(raw: Raw, start: int, end: int) -> Iterator[bytes]:
    """Lines with their ends, the first `WINDOW` bytes of each."""
    while start < end:
        found = raw.find(b"\n", start, end)
        stop = end if found < 0 else found + 1
        yield raw[start : min(stop, start + WINDOW)]
        start = stop
