"""Bytes to text, whatever the label says.

A label is trusted where it is a charset we know and the bytes agree. Otherwise UTF-8 is tried (random
8-bit text almost never is valid UTF-8), then windows-1252, which always gives something. Labels are
looked up in the standard table of aliases, never through `codecs.lookup` on foreign words: that would
remember every unknown one for ever, and would reach codecs that are no charsets (``zlib``, ``idna``).
"""

from __future__ import annotations

import codecs
import re
from encodings.aliases import aliases
from functools import lru_cache
from types import MappingProxyType
from typing import Final

NOT_CHARSETS: Final = frozenset(
    [
        "base64_codec",
        "bz2_codec",
        "hex_codec",
        "idna",
        "mbcs",
        "oem",
        "palmos",
        "punycode",
        "quopri_codec",
        "raw_unicode_escape",
        "rot_13",
        "undefined",
        "unicode_escape",
        "uu_codec",
        "zlib_codec",
    ]
)

# What software labels with the left name has long been the right one (WHATWG Encoding Standard §4.2).
SUPERSETS: Final = MappingProxyType(
    {
        "ascii": "cp1252",
        "latin_1": "cp1252",
        "iso8859_9": "cp1254",
        "iso8859_11": "cp874",
        "tis_620": "cp874",
        "gb2312": "gb18030",
        "gbk": "gb18030",
        "euc_kr": "cp949",
        "shift_jis": "cp932",
        "big5": "big5hkscs",
    }
)

# Labels seen in mail that the standard table lacks.
EXTRA: Final = MappingProxyType(
    {
        "utf8mb4": "utf_8",
        "unicode": "utf_8",
        "unicode_1_1_utf_7": "utf_7",
        "x_sjis": "cp932",
        "x_gbk": "gb18030",
        "x_euc_jp": "euc_jp",
        "x_mac_roman": "mac_roman",
        "ansi": "cp1252",
        "x_ansi": "cp1252",
        "ansi_x3_110_1983": "cp1252",
        "iso_8859_8_i": "iso8859_8",
        "iso_8859_8_e": "iso8859_8",
        "iso_8859_6_i": "iso8859_6",
        "8bit": "cp1252",
        "x_unknown": "cp1252",
        "unknown_8bit": "cp1252",
        "default": "cp1252",
    }
)

# Bytes 10 and 13 are line ends and nothing else in these, whatever stands beside them.
_ASCII_BASED: Final = frozenset(
    [
        "utf_8",
        *(f"cp125{number}" for number in range(9)),
        *(f"iso8859_{number}" for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
        *("koi8_r", "koi8_u", "cp874", "cp932", "cp949", "big5hkscs", "gb18030", "euc_jp", "iso2022_jp"),
    ]
)
_ASCII_IS_ASCII: Final = _ASCII_BASED - {"iso2022_jp"}  # which says all it has to say in ASCII

MAX_LABEL: Final = 40
UTF_8: Final = "utf_8"
_SEPARATORS = re.compile(r"[^0-9a-z.]+")


def _table() -> dict[str, str]:
    names = {codec: codec for codec in aliases.values()} | dict(aliases) | dict(EXTRA)
    for codec in (
        "cp720",
        "cp737",
        "cp856",
        "cp874",
        "cp875",
        "cp1006",
        "koi8_r",
        "koi8_t",
        "koi8_u",
        "mac_greek",
    ):
        names.setdefault(codec, codec)
    return {name: SUPERSETS.get(codec, codec) for name, codec in names.items() if codec not in NOT_CHARSETS}


_CODECS: Final = MappingProxyType(_table())


def codec_of(label: str) -> str | None:
    """Return the Python codec for a charset label from a mail, or None where no charset has that name."""
    return None if len(label) > MAX_LABEL else _codec_of(label)


@lru_cache(maxsize=256)
def _codec_of(label: str) -> str | None:
    name = _SEPARATORS.sub("_", label.lower()).strip("_")
    return _CODECS.get(name) or _CODECS.get(name.replace(".", "_"))


def guess(data: bytes) -> str:
    """Decode bytes that carry no label: UTF-8 where it is, else windows-1252, else Latin-1 (never fails)."""
    for codec in (UTF_8, "cp1252"):
        try:
            return data.decode(codec)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def decode(data: bytes, label: str | None) -> tuple[str, bool]:
    """Decode ``data`` as ``label`` says; the second value is False where the label was unknown or wrong."""
    if not label:
        return _guessed(data), True
    codec = codec_of(label)
    return (_guessed(data), False) if codec is None else _decoded(data, codec, label)


def decode_lines(data: bytes, label: str | None) -> tuple[str, bool]:
    """As `decode`, with lines ended by LF. Where the charset allows, CR goes first, as bytes: faster."""
    codec = codec_of(label) if label else UTF_8
    if codec is not None and codec not in _ASCII_BASED:
        text, right = _decoded(data, codec, label or "")
        return lines_of(text), right
    if b"\r" in data:
        data = data.replace(b"\r", b"" if b"\n" in data else b"\n")
    if not label:
        return _guessed(data), True
    return (_guessed(data), False) if codec is None else _decoded(data, codec, label)


def _decoded(data: bytes, codec: str, label: str) -> tuple[str, bool]:
    if codec in _ASCII_IS_ASCII and data.isascii():
        return without_nul(data.decode(UTF_8)), True
    try:
        text = data.decode(codec)
    except UnicodeError:
        if codec == "cp1252":
            # Latin-1 proper has the five bytes that windows-1252 leaves undefined.
            return _guessed(data), label.lower() != "us-ascii"
        text = _repaired(data, codec)
        return (clean(text) if codec == "utf_7" else without_nul(text)), False
    # ASCII means ASCII: 8-bit bytes under that label are more often UTF-8 than anything else.
    if codec == "cp1252" and label.lower() in ("us-ascii", "ascii") and not text.isascii():
        return _guessed(data), False
    if codec in _ASCII_BASED:
        return _without_nul_of(data, text), True
    return (clean(text) if codec == "utf_7" else without_nul(text)), True


def _guessed(data: bytes) -> str:
    return _without_nul_of(data, guess(data))


def _without_nul_of(data: bytes, text: str) -> str:
    """`without_nul` of text whose NULs are those of ``data``: bytes are searched many times as fast."""
    return text.replace("\0", "") if b"\0" in data else text


def lines_of(text: str) -> str:
    """``text`` with its lines ended by LF, whatever ended them."""
    if "\r" not in text:
        return text
    return text.replace("\r", "") if "\n" in text else text.replace("\r", "\n")


def decode_prefix(data: bytes, label: str | None) -> str:
    """Decode bytes that were cut at an arbitrary place: a character split by the cut is dropped."""
    codec = (codec_of(label) if label else None) or UTF_8
    decoder = codecs.getincrementaldecoder(codec)(errors="replace")
    return clean(decoder.decode(data))


def _repaired(data: bytes, codec: str) -> str:
    if codec != UTF_8:
        try:
            return data.decode(UTF_8)
        except UnicodeDecodeError:
            pass
    try:
        return data.decode(codec, "replace")
    except UnicodeError:  # UTF-16 and UTF-32 can refuse even to replace
        return guess(data)


def without_nul(text: str) -> str:
    """Remove NUL from text that came out of a codec which gives no surrogates."""
    return text.replace("\0", "") if "\0" in text else text


def clean(text: str) -> str:
    """Remove what Postgres and JSON refuse: NUL, and lone surrogates (which UTF-7 can spell)."""
    text = without_nul(text)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
