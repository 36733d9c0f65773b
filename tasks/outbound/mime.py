"""Headers and MIME parts as bytes: CRLF, lines of at most 998 bytes (RFC 5322 §2.1.1), 7-bit bodies.

Written by hand because the standard generator takes longer than the whole rest of a dispatch; the
standard parser judges it in the tests.
"""

import base64
import binascii
import quopri
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from tasks.outbound.addresses import Address

_FOLD_AT: Final = 76
_WORD_BYTES: Final = 45
"""Bytes in one encoded word: 60 base64 characters, 72 with its frame (RFC 2047 §2 allows 75)."""
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")
_PLAIN_LINE: Final = 998


def unstructured(name: str, value: str) -> bytes:
    """A header such as Subject; folded, and encoded words (RFC 2047) where it is not ASCII."""
    if value.isascii() and "=?" not in value and value == value.strip():
        line = f"{name}: {value}"
        if len(line) <= _FOLD_AT + 2:
            return line.encode() + b"\r\n"
        if all(len(word) <= _FOLD_AT for word in value.split(" ")) and "  " not in value:
            return _folded(name, value.split(" ")).encode() + b"\r\n"
    return f"{name}: ".encode() + b"\r\n ".join(_words(value)) + b"\r\n"


def tokens(name: str, values: Iterable[str]) -> bytes:
    """A header of words that may be parted only between them, such as References."""
    return _folded(name, list(values)).encode() + b"\r\n"


def addresses(name: str, people: Iterable[Address]) -> bytes:
    """A header of addresses, raw UTF-8 only where an address itself is not ASCII (RFC 6532)."""
    written = [_mailbox(person) for person in people]
    return _folded(name, [f"{text}," for text in written[:-1]] + written[-1:]).encode() + b"\r\n"


def _mailbox(person: Address) -> str:
    if not person.name:
        return person.spec
    name = person.name
    if not name.isascii() or "=?" in name or len(name) > 70:
        shown = "\r\n ".join(word.decode() for word in _words(name))
    elif _ATOMS.fullmatch(name) and "  " not in name:
        shown = name
    else:
        shown = '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
    return f"{shown} <{person.spec}>"


def _folded(name: str, words: list[str]) -> str:
    lines = [f"{name}:"]
    for word in words:
        last = lines[-1].rpartition("\n")[2]
        if len(last) + 1 + len(word.partition("\r")[0]) > _FOLD_AT and len(last) > len(name) + 1:
            lines[-1] += f"\r\n {word}"
        else:
            lines[-1] += f" {word}"
    return lines[0]


def _words(value: str) -> list[bytes]:
    """Encoded words, none of which parts a character (RFC 2047 §5)."""
    words, piece = [], b""
    for character in value:
        encoded = character.encode()
        if len(piece) + len(encoded) > _WORD_BYTES:
            words.append(piece)
            piece = b""
        piece += encoded
    words.append(piece)
    return [b"=?utf-8?b?" + base64.b64encode(word) + b"?=" for word in words]


def text_part(subtype: str, text: str) -> tuple[list[bytes], bytes]:
    """Header lines and body of a text part: 7bit where it can be, else quoted-printable or base64."""
    body = "\r\n".join(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    if body and not body.endswith("\r\n"):
        body += "\r\n"
    charset = "us-ascii" if body.isascii() else "utf-8"
    kind = f'Content-Type: text/{subtype}; charset="{charset}"\r\n'.encode()
    raw = body.encode()
    if charset == "us-ascii" and "\0" not in body and _short(raw):
        return [kind, b"Content-Transfer-Encoding: 7bit\r\n"], raw
    if 3 * sum(byte > 126 for byte in raw[:4000]) < len(raw[:4000]) and "\0" not in body:
        return [kind, b"Content-Transfer-Encoding: quoted-printable\r\n"], _quoted(raw)
    return [kind, b"Content-Transfer-Encoding: base64\r\n"], base64_lines(raw)


def _short(raw: bytes) -> bool:
    return len(raw) <= _PLAIN_LINE or max(map(len, raw.split(b"\r\n"))) <= _PLAIN_LINE


def _quoted(raw: bytes) -> bytes:
    return quopri.encodestring(raw.replace(b"\r\n", b"\n"), quotetabs=False).replace(b"\n", b"\r\n")


def base64_lines(content: bytes) -> bytes:
    """Base64 in lines of 76 characters with CRLF (RFC 2045 §6.8)."""
    return b"".join(
        binascii.b2a_base64(content[start : start + 57], newline=False) + b"\r\n"
        for start in range(0, len(content), 57)
    )


def parameter(name: str, value: str) -> str:
    """``; name=value`` of a MIME header, in RFC 2231 sections where it is not short ASCII."""
    if value.isascii() and len(value) < 60:
        return f';\r\n {name}="' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    pieces, piece = [], ""
    for character in value:
        encoded = quote(character, safe="")
        if len(piece) + len(encoded) > 50:
            pieces.append(piece)
            piece = ""
        piece += encoded
    pieces.append(piece)
    if len(pieces) == 1:
        return f";\r\n {name}*=utf-8''{pieces[0]}"
    return "".join(
        f";\r\n {name}*{number}*={'' if number else chr(39).join(('utf-8', '', ''))}{piece}"
        for number, piece in enumerate(pieces)
    )
