"""The values inside a response, one after another (RFC 9051 §4)."""

import re
from typing import Final, TypeAlias

from tasks.wire.imap.scanner import Literal

Value: TypeAlias = bytes | Literal | list["Value"] | None
"""An atom, number or quoted string (unescaped) · a literal · a parenthesised list · NIL."""

DEEPEST: Final = 50
"""Lists in lists; BODYSTRUCTURE of hostile MIME could go on."""

QUOTED: Final = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
ATOM: Final = re.compile(rb'(?:[^\s()"\[\]]+|\[[^\]]*\])+')


class Broken(ValueError):
    """The response is not IMAP here."""


class Cursor:
    """A place in the parts of a response: ``text`` is the current part, ``at`` an offset in it."""

    def __init__(self, parts: tuple[bytes | Literal, ...], at: int) -> None:
        self._parts = parts
        self._index = 0
        first = parts[0]
        self.text = first if isinstance(first, bytes) else b""
        self.at = at

    @property
    def ended(self) -> bool:
        """Whether nothing but white space is left."""
        self._skip()
        return self.at >= len(self.text) and self._index + 1 >= len(self._parts)

    def atom(self) -> bytes:
        """A word, with its ``[section]`` where it has one."""
        self._skip()
        match = ATOM.match(self.text, self.at)
        if match is None:
            raise Broken("word expected")
        self.at = match.end()
        return match[0]

    def value(self, depth: int = 0) -> Value:
        """The next value, whatever its form."""
        self._skip()
        if self.at >= len(self.text):
            return self._literal()
        match self.text[self.at]:
            case 0x28:  # (
                return self._list(depth)
            case 0x22:  # "
                return self._quoted()
            case _:
                word = self.atom()
                return None if word.upper() == b"NIL" else word

    def _skip(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def _literal(self) -> Literal:
        if self._index + 2 >= len(self._parts):
            raise Broken("nothing is left")
        literal, text = self._parts[self._index + 1 : self._index + 3]
        if not isinstance(literal, Literal) or not isinstance(text, bytes):
            raise Broken("text and literals must take turns")
        self._index += 2
        self.text, self.at = text, 0
        return literal

    def _quoted(self) -> bytes:
        match = QUOTED.match(self.text, self.at)
        if match is None:
            raise Broken("no closing quote")
        self.at = match.end()
        return ESCAPED.sub(rb"\1", match[1]) if b"\\" in match[1] else match[1]

    def _list(self, depth: int) -> list[Value]:
        if depth >= DEEPEST:
            raise Broken("too deep")
        self.at += 1
        found: list[Value] = []
        while True:
            self._skip()
            if self.text[self.at : self.at + 1] == b")":
                self.at += 1
                return found
            found.append(self.value(depth + 1))
