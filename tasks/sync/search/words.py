"""Text to words, for the index and for what is sought alike.

Words are letters and digits, case-folded, in compatibility form (NFKC), so that full-width and ligature
forms are found too; accents count. Chinese, Japanese, Korean, Thai, Lao, Burmese and Khmer divide words
by no space (or, Korean, inflect them): a run of these becomes its overlapping pairs of characters, 会议纪要
→ 会议 议纪 纪要 要, and whoever seeks 纪要 finds it.
"""

import re
import unicodedata
from typing import Final

MAX_WORD: Final = 64
"""Characters of a word that count; what is longer is encoded data, or an address of a page."""
MAX_SOUGHT: Final = 32
"""Words of one search."""

# Marks that belong to words and are no letters: accents, Hebrew and Arabic points, Indic vowels.
_MARKS = (
    "\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc"
    "\u0900-\u0963\u0966-\u0df3\u1ab0-\u1aff\u1dc0-\u1dff"
)
_SPACELESS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecd\u0edc-\u0edf\u1000-\u1049\u1050-\u109f\u1780-\u17d3"
    "\u3041-\u3096\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"(?:[^\W_]|[{_MARKS}{_SPACELESS}])+")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_RUN = re.compile(rf"([{_SPACELESS}]+)")
_TERM = re.compile(r'(-?)(?:"([^"]*)"?|(\S+))')


def index_words(text: str, most_bytes: int) -> str:
    """The words of ``text`` in order, divided by spaces, at most ``most_bytes`` of UTF-8."""
    found: list[str] = []
    left = most_bytes
    for word in _words(text[:most_bytes]):
        runs = _RUN.split(word) if not word.isascii() else (word,)
        for run in runs:
            for piece in _pairs(run, ending=True):
                left -= len(piece.encode()) + 1
                if left < 0:
                    return " ".join(found)
                found.append(piece)
    return " ".join(found)


def condition(sought: str, weight: str = "") -> str | None:
    """What a person typed as a ``tsquery``: all words, ``"a phrase"``, ``-without``, ``or``, ``begin*``.

    ``weight``: A to D, the part of the message to look in. None where there is no word in it. Raises
    `ValueError` where there are more than `MAX_SOUGHT`.
    """
    query, joint, count = "", " & ", 0
    for minus, quoted, bare in _TERM.findall(sought):
        if bare.lower() == "or" and not minus:
            joint = " | "
            continue
        pieces = [piece for word in _words(bare or quoted) for piece in _sought(word)]
        if not pieces:
            continue
        count += len(pieces)
        if count > MAX_SOUGHT:
            raise ValueError
        begins = bare.endswith("*")
        atoms = [
            _atom(piece, weight, begins=single or (begins and at == len(pieces) - 1))
            for at, (piece, single) in enumerate(pieces)
        ]
        spaceless = any(_RUN.match(piece) for piece, _ in pieces)
        term = (" & " if spaceless else " <-> ").join(atoms)
        term = f"({term})" if len(atoms) > 1 else term
        query += (joint if query else "") + ("!" if minus else "") + term
        joint = " & "
    return query or None


def _words(text: str) -> list[str]:
    if text.isascii():
        return [word[:MAX_WORD] for word in _ASCII_WORD.findall(text.lower())]
    folded = unicodedata.normalize("NFKC", text).casefold()
    return [word if _RUN.search(word) else word[:MAX_WORD] for word in _WORD.findall(folded)]


def _sought(word: str) -> list[tuple[str, bool]]:
    """The pieces of one word, each with whether it is the mere beginning of a pair."""
    runs = [run for run in _RUN.split(word) if run]
    return [
        (piece, len(run) == 1 and _RUN.match(run) is not None)
        for run in runs
        for piece in _pairs(run, ending=False)
    ]


def _pairs(run: str, *, ending: bool) -> list[str]:
    """A spaceless run as pairs, in the index (``ending``) with its last character alone as well."""
    if run.isascii() or not _RUN.match(run):
        return [run[:MAX_WORD]] if run else []
    if len(run) == 1:
        return [run]
    return [run[at : at + 2] for at in range(len(run) - (0 if ending else 1))]


def _atom(piece: str, weight: str, *, begins: bool) -> str:
    mark = ("*" if begins else "") + weight
    return f"'{piece}'" + (f":{mark}" if mark else "")
