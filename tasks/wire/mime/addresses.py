"""Address lists (RFC 5322 §3.4 and §4.4), read in one pass over a value.

Lists are cut into addresses before names are decoded, so a comma inside an encoded word divides nothing.
What people expect of broken input guides the rest: words without an ``@`` are a name, not an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import Final

from tasks.wire.mime.values import Address
from tasks.wire.mime.words import decode_words

REPEATED: Final = 200
"""Characters of a value that is worth remembering: a mailbox hears from the same people again and again."""

# The two shapes nearly all mail has: phrase <a@b>, and a@b alone. Possessive: junk costs no backtracking.
_USUAL = re.compile(
    r"[ \t]*+(?:"
    r"(?:\"([^\"\\]*+)\"[ \t]*+|([^\"(),:;<>@\[\]\\.\t]*+))"
    r"<([^\s\"(),:;<>@\[\]\\]++@[^\s\"(),:;<>@\[\]\\]++)>"
    r"|([^\s\"(),:;<>@\[\]\\]++@[^\s\"(),:;<>@\[\]\\]++)"
    r")[ \t]*+(?:,|\Z)"
)
_TOKEN = re.compile(
    r"[ \t\r\n]++"
    r"|\"(?:[^\"\\]|\\.)*+\"?"
    r"|=\?[^?\s]{1,80}+\?[bBqQ]\?[^?\s]*+\?="
    r"|\[[^\[\]\s]*+\]"
    r"|[^\s\"(),:;<>@\[\]\\]++"
    r"|.",
    re.DOTALL,
)


def parse_addresses(values: list[str], most: int) -> tuple[tuple[Address, ...], bool]:
    """Return the mailboxes of one field's values (text, its encoded words not decoded), and whether there
    were more than ``most``.

    Groups give their members (``undisclosed-recipients:;`` none).
    """
    if len(values) == 1 and len(values[0]) <= REPEATED:
        people = _remembered(values[0])
        return people[:most], len(people) > most
    found: list[Address] = []
    for person in chain.from_iterable(map(_people, values)):
        if len(found) == most:
            return tuple(found), True
        found.append(person)
    return tuple(found), False


def _people(value: str) -> Iterator[Address]:
    for name, address in _pairs(value):
        yield Address(decode_words(name).strip() if "=?" in name else name, address)


@lru_cache(maxsize=1024)
def _remembered(value: str) -> tuple[Address, ...]:
    return tuple(_people(value))


def _pairs(value: str) -> Iterator[tuple[str, str]]:
    position, end = 0, len(value)
    while position < end and (match := _USUAL.match(value, position)):
        quoted, phrase, inside, alone = match.groups()
        if alone is not None:
            yield "", alone
        elif quoted is not None:
            yield quoted, inside
        else:
            yield " ".join(phrase.split()), inside
        position = match.end()
    if position < end:
        yield from _Scanner(value, position).pairs()


class _Scanner:
    """Everything the usual shapes do not cover: comments, groups, routes, quoted local parts, junk."""

    _MARK = re.compile(r"\\.|[()]", re.DOTALL)

    def __init__(self, value: str, position: int) -> None:
        self.value = value
        self.position = position
        self.words: list[tuple[str, bool]] = []  # (token, whether it touches the one before)
        self.comments: list[str] = []
        self.angle: str | None = None
        self.last_closer = value.rfind(">")

    def pairs(self) -> Iterator[tuple[str, str]]:
        touching = False
        end = len(self.value)
        while self.position < end:
            match = _TOKEN.match(self.value, self.position)
            if match is None:  # cannot be: the last branch takes any character
                break
            token = match[0]
            self.position = match.end()
            first = token[0]
            if first in " \t\r\n":
                touching = False
                continue
            if first == "(":
                self.comments.append(self._comment())
                touching = False
                continue
            if first == "<":
                self.angle = self._angle()
            elif first in ",;":
                yield from self._flush()
            elif first == ":":
                self.words.clear()  # the name of a group
                self.comments.clear()
            elif first != ">":
                self.words.append((token, touching))
                touching = True
                continue
            touching = False
        yield from self._flush()

    def _comment(self) -> str:
        depth, start = 1, self.position
        for match in self._MARK.finditer(self.value, start):
            depth += {"(": 1, ")": -1}.get(match[0], 0)
            if depth == 0:
                self.position = match.end()
                return _unescaped(self.value[start : match.start()])
        self.position = len(self.value)
        return _unescaped(self.value[start:])

    def _angle(self) -> str:
        end = self.value.find(">", self.position) if self.position <= self.last_closer else -1
        if end < 0:  # unclosed: up to the next comma
            end = self.value.find(",", self.position)
            inside = self.value[self.position : end if end >= 0 else None]
            self.position = end if end >= 0 else len(self.value)
        else:
            inside = self.value[self.position : end]
            self.position = end + 1
        inside = "".join(inside.split()).strip("<")
        if inside.startswith("@") and ":" in inside:  # a route, RFC 5322 §4.4
            inside = inside[inside.rindex(":") + 1 :]
        return inside

    def _flush(self) -> Iterator[tuple[str, str]]:
        words, comments, angle = self.words, self.comments, self.angle
        self.words, self.comments, self.angle = [], [], None
        if angle is not None:
            name = _phrase(words)
            if comments:
                name = f"{name} ({' '.join(comments)})" if name else " ".join(comments)
            if name or angle:
                yield name, angle
            return
        at = next((index for index, (word, _) in enumerate(words) if word == "@"), None)
        if at is None:
            if len(words) == 1 and not comments and not words[0][0].startswith('"'):
                yield "", words[0][0]  # a local name, such as MAILER-DAEMON
            elif words or comments:
                yield _phrase(words) or " ".join(comments), ""
            return
        start, stop = max(at - 1, 0), min(at + 2, len(words))
        while start > 0 and words[start][1]:
            start -= 1
        while stop < len(words) and words[stop][1]:
            stop += 1
        address = "".join(token for token, _ in words[start:stop])
        name = _phrase(words[:start] + words[stop:]) or " ".join(comments)
        yield name, address


def _phrase(words: list[tuple[str, bool]]) -> str:
    text = ""
    for token, touching in words:
        if token[0] == '"':
            token = _unescaped(token[1:-1] if len(token) > 1 and token[-1] == '"' else token[1:])
        text += token if touching or not text else " " + token
    return text.strip()


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL) if "\\" in text else text
