"""Parameters of Content-Type and Content-Disposition (RFC 2045 §5.1, RFC 2231), leniently."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from tasks.wire.mime.charsets import decode
from tasks.wire.mime.words import decode_words, unicode_of

MAX_VALUE = 8 * 1024
MAX_PARAMS = 64
REPEATED = 100
"""Characters of a value that is worth remembering: few there are, in nearly all mail."""
_PARAM = re.compile(r";[ \t]*+([^\s=;\"]++)[ \t]*+=[ \t]*+(?:\"((?:[^\"\\]|\\.)*+)\"[^;]*+|([^;]*+))", re.S)
_PIECE = re.compile(r"([^*]+)\*(?:(\d{1,4})(\*)?)?\Z")


def parse_params(value: str) -> tuple[str, dict[str, str]]:
    """Split ``text/plain; charset=x`` into ``("text/plain", {"charset": "x"})``, both sides in lower case.

    Values are raw (bytes as Latin-1) except where RFC 2231 says how to decode them; then they stand under
    ``name*``. See `text_param` for the text of either. What is returned is shared: nobody changes it.
    """
    if len(value) > REPEATED or "name" in value or "boundary" in value:
        return _parsed(value)
    return _remembered(value)


def _parsed(value: str) -> tuple[str, dict[str, str]]:
    semicolon = value.find(";")
    if semicolon < 0:
        return value.strip().lower(), {}
    main = value[:semicolon].strip().lower()
    params: dict[str, str] = {}
    pieces: dict[str, list[tuple[int, bool, str]]] = {}
    for count, match in enumerate(_PARAM.finditer(value, semicolon, min(len(value), MAX_VALUE))):
        if count == MAX_PARAMS:
            break
        name, quoted, bare = match.groups()
        name = name.lower()
        text = bare.strip(" \t\r\n") if quoted is None else quoted
        if quoted is not None and "\\" in quoted:
            text = re.sub(r"\\([\\\"])", r"\1", quoted)
        if "*" in name and (piece := _PIECE.match(name)):
            key, number, star = piece.groups()
            encoded = bool(star) or number is None
            pieces.setdefault(key, []).append((int(number or 0), encoded, text))
        else:
            params.setdefault(name, text)
    for key, found in pieces.items():
        params[key + "*"] = _joined(sorted(found, key=lambda piece: piece[0]))
    return main, params


_remembered = lru_cache(maxsize=512)(_parsed)


def text_param(params: dict[str, str], name: str) -> str | None:
    """Return a parameter as text; RFC 2231's form wins over the plain one, which is its fallback."""
    extended = params.get(name + "*")
    if extended:
        return extended
    plain = params.get(name)
    return None if plain is None else decode_words(unicode_of(plain))


def token_param(params: dict[str, str], name: str) -> str | None:
    """Return a parameter that is compared with bytes of the mail (boundary) or looked up (charset)."""
    value = params.get(name)
    return params.get(name + "*") if value is None else value


def _joined(pieces: list[tuple[int, bool, str]]) -> str:
    if not any(encoded for _, encoded, _ in pieces):
        return decode_words(unicode_of("".join(text for _, _, text in pieces)))
    data = b"".join(
        unquote_to_bytes(text.encode("latin-1")) if encoded else text.encode("latin-1")
        for _, encoded, text in pieces
    )
    charset, tick, rest = data.partition(b"'")
    _language, second, text = rest.partition(b"'")
    if not (tick and second):
        return decode(data, None)[0]
    return decode(text, charset.decode("latin-1"))[0]
