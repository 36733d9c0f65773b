"""Encoded words in header values (RFC 2047), read as leniently as people write them.

Adjacent words of one charset are joined as bytes before they are decoded: many senders cut inside a
multi-byte character. Words are recognised anywhere, also inside quotes and glued to other text, since
§5's rules on placement are broken daily. A word whose base64 cannot be read is left as it stands.
"""

from __future__ import annotations

import binascii
import re
from functools import lru_cache
from typing import Final

from tasks.wire.mime.charsets import decode, guess, without_nul

REPEATED: Final = 200
"""Characters of a value that is worth remembering: names come again and again, as do subjects of threads."""

# charset, optional language (RFC 2231 §5), encoding, text
WORD = re.compile(r"=\?([^?*\s]{1,40})(?:\*[^?\s]{0,40})?\?([bBqQ])\?([^?]*(?:\?(?!=)[^?]*)*)\?=")


def unicode_of(value: str) -> str:
    """Read a raw value (bytes as Latin-1) as text: ASCII, else UTF-8 (RFC 6532), else windows-1252."""
    if value.isascii():
        return without_nul(value)
    return without_nul(guess(value.encode("latin-1")))


def decode_words(value: str) -> str:
    """Return ``value`` with every encoded word decoded. Never fails; takes time linear in the value."""
    if "=?" not in value:
        return value
    return _remembered(value) if len(value) <= REPEATED else _decoded(value)


def _decoded(value: str) -> str:
    pieces: list[str] = []
    run: list[bytes] = []
    charset = ""
    end = 0
    # Nothing past the last "?=" can be a word: looking there would take quadratic time.
    for match in WORD.finditer(value, 0, value.rfind("?=") + 2):
        label, encoding, encoded = match.groups()
        data = _unquoted(encoded) if encoding in "qQ" else _from_base64(encoded)
        if data is None:
            continue
        between = value[end : match.start()]
        label = label.lower()
        if not (charset and (not between or between.isspace())):
            if charset:
                pieces.append(decode(b"".join(run), charset)[0])
            pieces.append(between)
            run = []
        elif label != charset:
            pieces.append(decode(b"".join(run), charset)[0])
            run = []
        run.append(data)
        charset = label
        end = match.end()
    if charset:
        pieces.append(decode(b"".join(run), charset)[0])
    pieces.append(value[end:])
    return "".join(pieces)


_remembered = lru_cache(maxsize=1024)(_decoded)


def _unquoted(encoded: str) -> bytes:
    raw = encoded.encode("utf-8")
    return binascii.a2b_qp(raw, header=True) if b"=" in raw or b"_" in raw else raw


def _from_base64(encoded: str) -> bytes | None:
    try:
        return binascii.a2b_base64(encoded + "=" * (-len(encoded) % 4))
    except (binascii.Error, ValueError):
        return None
