"""Message ids (RFC 5322 §3.6.4) and the keyword-like fields, in one normal form."""

from __future__ import annotations

import re

MAX_ID = 998
_BRACKETED = re.compile(r"<([^<>]+)>")
_SPACE = re.compile(r"\s+")


def first_id(value: str) -> str | None:
    """Return the first message id of a field as ``<...>``; one written without brackets gets them."""
    found = ids(value, 1)
    return found[0] if found else None


def ids(value: str, most: int) -> tuple[str, ...]:
    """Return up to ``most`` message ids, each once: the first, then the newest (threads hang on them)."""
    if value.count("<") == 1 and value[0] == "<" and _is_plain(value):
        return (value,)
    found: dict[str, None] = {}
    for inner in _BRACKETED.findall(value):
        if not inner.isprintable() or " " in inner:
            inner = _SPACE.sub("", inner)
        if inner and len(inner) <= MAX_ID:
            found[f"<{inner}>"] = None
    if not found:
        bare = value.strip(" \t<>")
        if bare and len(bare) <= MAX_ID and not _SPACE.search(bare):
            return (f"<{bare}>",)
        return ()
    every = tuple(found)
    if len(every) <= most:
        return every
    return every[:1] + every[len(every) - most + 1 :]


def _is_plain(value: str) -> bool:
    """Whether a value that begins with its only ``<`` is a message id as it stands."""
    return (
        value.find(">") == len(value) - 1
        and 2 < len(value) <= MAX_ID + 2
        and " " not in value
        and value.isprintable()
    )


def list_id_of(value: str) -> str | None:
    """Return the identifier of a List-Id, without its description and brackets (RFC 2919 §2)."""
    match = _BRACKETED.search(value)
    return (match[1] if match else value).strip() or None


def keyword_of(value: str) -> str | None:
    """Return the keyword of a field such as Auto-Submitted: before parameters and comments, lower case."""
    return value.partition(";")[0].partition("(")[0].strip().lower() or None
