"""The base subject that threads fall back to (RFC 5256 §2.1), with the prefixes of more languages."""

from __future__ import annotations

import re

MAX_SUBJECT = 2000
_REPLY = re.compile(
    r"\s*(?:re|fw|fwd|aw|wg|sv|vs|vb|tr|rv|enc|antw|odp|pd|ynt|ilt|rif|res|doorst|转发|回复|答复|轉寄|回覆)"
    r"\s*(?:\[[^\[\]]*\]|\(\d+\)|\d+)?\s*[:：]\s*",  # noqa: RUF001 - the full-width colon is what is meant
    re.IGNORECASE,
)
_BLOB = re.compile(r"\s*\[([^\[\]]*)\]\s*")
_TRAILER = re.compile(r"\(fwd\)\s*\Z", re.IGNORECASE)
_WRAPPED = re.compile(r"\s*\[\s*(?:fwd|fw)\s*:(.*)\]\s*\Z", re.IGNORECASE | re.DOTALL)


def base_subject(subject: str) -> str:
    """Return the subject without reply and forward marks and list tags, spaces collapsed, case-folded.

    ``Re: [list] AW: Plan (fwd)`` becomes ``plan``. A subject that consists of a tag alone keeps it.
    """
    rest = " ".join(subject[:MAX_SUBJECT].split())
    if ":" not in rest and "[" not in rest and "：" not in rest and "(" not in rest:  # noqa: RUF001
        return rest.casefold()
    while True:
        while rest[-5:].lower() == "(fwd)" and (trailer := _TRAILER.search(rest, len(rest) - 5)):
            rest = rest[: trailer.start()].rstrip()
        rest = _without_prefixes(rest)
        wrapped = _WRAPPED.match(rest)
        if not wrapped:
            return rest.strip().casefold()
        rest = wrapped[1].strip()


def _without_prefixes(rest: str) -> str:
    position = 0
    while True:
        if reply := _REPLY.match(rest, position):
            position = reply.end()
        elif (blob := _BLOB.match(rest, position)) and rest[blob.end() :].strip():
            if blob[1].lstrip()[:3].lower() == "fwd" and _WRAPPED.match(rest, position):
                return rest[position:]
            position = blob.end()
        else:
            return rest[position:]
