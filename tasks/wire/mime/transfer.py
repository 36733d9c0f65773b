"""Content-Transfer-Encoding (RFC 2045 §6) undone by the C decoders; big parts take little memory."""

from __future__ import annotations

import binascii
import hashlib
import re
from typing import NamedTuple

import pybase64

from tasks.wire.mime import values as v

CHUNK = 1024 * 1024
_IDENTITY = frozenset(("", "7bit", "8bit", "binary"))
_UUENCODED = frozenset(("x-uuencode", "uuencode", "uue", "x-uue"))
_NOT_BASE64 = bytes(
    sorted(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
)
_BASE64_LINES = re.compile(rb"[A-Za-z0-9+/=\r\n]*+")
_LINE = re.compile(rb"[^\n]*+(?:\n|\Z)")
_UU_BEGIN = re.compile(rb"^begin[ \t]+[0-7]{3,4}[ \t]+[^\r\n]*(?:\r?\n|\Z)", re.MULTILINE)


class Decoded(NamedTuple):
    """Decoded bytes; ``defect`` says what could not be trusted; the bytes are then what was saved."""

    data: bytes
    defect: str | None = None


class Digested(NamedTuple):
    """What is stored of a part: bytes, SHA-256, defect."""

    size: int
    digest: bytes
    defect: str | None


def decode_transfer(data: memoryview, encoding: str) -> Decoded:
    """Decode one part's body. Unknown encodings are identity (RFC 2045 §6.4), with a defect."""
    if encoding in _IDENTITY:
        return Decoded(bytes(data))
    if encoding == "quoted-printable":
        return Decoded(binascii.a2b_qp(data))
    if encoding == "base64":
        return _base64(data)
    if encoding in _UUENCODED:
        return _uuencode(bytes(data))
    return Decoded(bytes(data), v.ENCODING_UNKNOWN)


def digest_transfer(data: memoryview, encoding: str) -> Digested:
    """Return size and digest of the decoded body, a chunk at a time where it is large."""
    if len(data) > 2 * CHUNK and encoding == "base64":
        streamed = _digest_base64(data)
        if streamed is not None:
            return streamed
    if len(data) > 2 * CHUNK and encoding == "quoted-printable":
        return _digest_quoted(data)
    if encoding in _IDENTITY:
        return Digested(len(data), hashlib.sha256(data).digest(), None)
    decoded, defect = decode_transfer(data, encoding)
    return Digested(len(decoded), hashlib.sha256(decoded).digest(), defect)


def _base64(data: memoryview) -> Decoded:
    try:
        return Decoded(_unbase64(bytes(data)))
    except binascii.Error:
        clean = bytes(data).translate(None, _NOT_BASE64)
    try:
        return Decoded(binascii.a2b_base64(clean + b"=="), v.BASE64_BROKEN)
    except binascii.Error:
        # One character too many, six bits of no byte. Cut-off base64 gives the rest; other text stays.
        if _BASE64_LINES.fullmatch(data):
            return Decoded(binascii.a2b_base64(clean.replace(b"=", b"")[:-1] + b"=="), v.BASE64_BROKEN)
        return Decoded(bytes(data), v.BASE64_BROKEN)


def _unbase64(data: bytes) -> bytes:
    """As `binascii.a2b_base64`, several times as fast where padding comes last."""
    padding = data.find(b"=")
    if padding >= 0 and data[padding:].strip(b"=\r\n"):
        return binascii.a2b_base64(data)  # what follows padding is no more of it
    return pybase64.b64decode(data)


def _digest_base64(data: memoryview) -> Digested | None:
    """Stream large base64; None for anything unusual before its end, which only the whole can judge."""
    digest, size, carry = hashlib.sha256(), 0, b""
    for start in range(0, len(data), CHUNK):
        clean = carry + bytes(data[start : start + CHUNK]).translate(None, _NOT_BASE64)
        last = start + CHUNK >= len(data)
        if not last and b"=" in clean:
            return None
        whole = len(clean) if last else len(clean) & ~3
        try:
            decoded = _unbase64(clean[:whole])
        except binascii.Error:
            return None
        digest.update(decoded)
        size += len(decoded)
        carry = clean[whole:]
    return Digested(size, digest.digest(), None)


def _digest_quoted(data: memoryview) -> Digested:
    """Stream large quoted-printable, cut after line ends, where its decoder keeps no state."""
    digest, size, carry = hashlib.sha256(), 0, b""
    for start in range(0, len(data), CHUNK):
        chunk = carry + bytes(data[start : start + CHUNK])
        cut = len(chunk) if start + CHUNK >= len(data) else chunk.rfind(b"\n") + 1
        decoded = binascii.a2b_qp(chunk[:cut])
        carry = chunk[cut:]
        if len(carry) > 16 * CHUNK:  # one line without end: decode what is there, at a safe place
            cut = len(carry) - 3
            while carry.rfind(b"=", cut, cut + 3) >= 0:
                cut -= 3
            decoded, carry = decoded + binascii.a2b_qp(carry[:cut]), carry[cut:]
        digest.update(decoded)
        size += len(decoded)
    return Digested(size, digest.digest(), None)


def _uuencode(data: bytes) -> Decoded:
    begin = _UU_BEGIN.search(data)
    if begin is None:
        return Decoded(data, v.UUENCODE_BROKEN)
    decoded = bytearray()
    defect = None
    for match in _LINE.finditer(data, begin.end()):
        line = match[0].rstrip(b"\r\n")
        if len(decoded) > len(data):  # counts that promise more than their lines hold are filled with zeros
            defect = v.UUENCODE_BROKEN
            break
        if line.strip(b" \t\r\n\f") == b"end":
            break
        try:
            decoded += binascii.a2b_uu(line)
        except binascii.Error:
            # Encoders that pad oddly: trust the line's own count (as the standard decoder does).
            length = (((line[0] - 32) & 63) * 4 + 5) // 3 if line else 0
            try:
                decoded += binascii.a2b_uu(line[:length])
            except binascii.Error:
                defect = v.UUENCODE_BROKEN
    else:
        defect = v.UUENCODE_BROKEN
    return Decoded(bytes(decoded), defect)
