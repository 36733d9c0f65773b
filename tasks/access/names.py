"""Names that people give to things: what may stand in one, and how one is quoted in a sentence."""

import shlex
import unicodedata
from typing import Final

from config.errors import UserError

_QUOTED_LENGTH: Final = 120
_LONGEST: Final = 250
_FORBIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_DIRECTION_MARKS: Final = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
)


def clean_name(text: str, what: str) -> str:
    """``text`` in NFC without surrounding spaces, fit to be the name of ``what``.

    Raises `UserError` unless it has 1 to 250 characters, none of them a control character, a line
    break, or a mark that turns the direction of the text around it.
    """
    name = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(name) <= _LONGEST:
        raise UserError(
            f"the name of a {what} must have 1 to {_LONGEST} characters; this one has {len(name)}."
        )
    if any(is_unprintable(character) for character in name):
        raise UserError(
            f"the name of a {what} must not contain control characters, line breaks or "
            f"text-direction marks: {quoted(name)}."
        )
    return name


def is_unprintable(character: str) -> bool:
    """Whether a character would not show as itself, or would disturb the text around it."""
    return unicodedata.category(character) in _FORBIDDEN_CATEGORIES or character in _DIRECTION_MARKS


def storable(text: str) -> bool:
    """Whether Postgres can hold the text: no NUL, no lone surrogate. What cannot be stored cannot
    be found either."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def quoted(text: str) -> str:
    """A name as a message shows it: in double quotes, on one line, at most 120 characters."""
    return f'"{_shown(text)}"'


def shell_word(text: str) -> str:
    """A name as it stands in a command that a message proposes."""
    return shlex.quote(_shown(text))


def _shown(text: str) -> str:
    shown = "".join("?" if is_unprintable(character) else character for character in text)
    return shown if len(shown) <= _QUOTED_LENGTH else shown[: _QUOTED_LENGTH - 1] + "…"
