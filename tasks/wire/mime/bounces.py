"""Bounces written for people: qmail, Exim, old Postfix, sendmail, Exchange, Gmail, and their kin.

They have the same shape: a sentence that says what this is, lines that begin with an address and hold nothing
else but a reason, then the message that was returned. Only a daemon's mail is read this way, so a person who
quotes a bounce reports nothing.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from tasks.wire.mime.addresses import parse_addresses
from tasks.wire.mime.values import Action, ReportedRecipient

MAX_DIAGNOSTIC: Final = 1000
MAX_TEXT: Final = 64 * 1024
_OPENING_CHARS: Final = 4096

_DAEMON = re.compile(
    r"(?:\A|[\s<\"])(?:mailer-daemon|mailerdaemon|mail-daemon|postmaster|mail delivery (?:sub)?system)\b",
    re.IGNORECASE,
)
_OPENINGS = re.compile(
    r"Hi\. This is the [^\n]{0,200}"  # qmail, and QSBMF in general
    r"|Unable\s+to\s+deliver\s+message\s+to\s+the\s+following"  # Yahoo
    r"|created\s+automatically\s+by\s+mail\s+delivery\s+software"  # Exim, GMX
    r"|This\s+is\s+the\s+(?:Postfix\s+program|mail\s+system)\s+at\s+host"
    r"|-{3,}\s+The\s+following\s+addresses\s+had\s+"  # sendmail
    r"|Delivery\s+to\s+the\s+following\s+recipients?\s+(?:failed|has\s+been)"  # Gmail
    r"|Delivery\s+has\s+failed\s+to\s+these\s+recipients"  # Exchange, now
    r"|did\s+not\s+reach\s+(?:some\s+or\s+all\s+of\s+)?the\s+(?:following|intended)\s+recipient"  # and before
    r"|following\s+recipient\(s\)\s+(?:could\s+not|cannot)\s+be\s+reached"
    r"|could\s+not\s+be\s+delivered\s+to\s+(?:one\s+or\s+more|the\s+following)",
    re.IGNORECASE,
)
_DELAYED = re.compile(
    r"not\s+yet\s+been\s+delivered|this\s+is\s+a\s+warning\s+(?:message\s+)?only|has\s+been\s+delayed"
    r"|had\s+(?:transient|non-fatal)",
    re.IGNORECASE,
)
_RECIPIENT = re.compile(
    r"^[ \t]{0,30}[<'\"]?([^\s<>()'\",;:@]{1,320}@[^\s<>()'\",;:@]{1,255})[>'\"]?(?:<mailto:[^>\n]{1,400}>)?"
    r"(?::(?=[ \t]|$)|[ \t]+on[ \t][^\n]{1,80}$|[ \t]*$)",
    re.MULTILINE,
)
_RETURNED = re.compile(
    r"^[ \t]{0,10}-{2,}+[^\n]{0,80}?(?:copy of (?:the|your) message|(?:original|unsent|undelivered) message"
    r"|message headers? follow)[^\n]*$"
    r"|^Original message headers:",
    re.IGNORECASE | re.MULTILINE,
)
_STATUS = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?!\d|\.\d)")
_SMTP = re.compile(r"(?<![\d.])[245]\d\d[ -]|(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?!\d|\.\d)")
_PARAGRAPH = re.compile(r"\n[ \t]*\n")


class Told(NamedTuple):
    """What a bounce says in words: of whom, and the returned message as far as it stands in the text."""

    recipients: tuple[ReportedRecipient, ...]
    returned: str


def is_daemon(fields: dict[str, str]) -> bool:
    """Whether a mail was sent by a mail system, or claims to report (by lower-case name, decoded)."""
    sender = fields.get("from", "")[:500]
    folded = sender.casefold()
    return (
        "x-failed-recipients" in fields
        or fields.get("return-path", "x").replace(" ", "") == "<>"
        or (
            ("daemon" in folded or "postmaster" in folded or "mail delivery" in folded)
            and _DAEMON.search(sender) is not None
        )
        or "multipart/report" in fields.get("content-type", "")[:100].lower()
    )


def tell(fields: dict[str, str], text: str, most: int) -> Told | None:
    """Read a daemon's words. None where they are no bounce: an answer out of office, a list's mail."""
    text = text[:MAX_TEXT]
    failed = fields.get("x-failed-recipients", "")[:MAX_TEXT]
    opening = _OPENINGS.search(text, 0, _OPENING_CHARS)
    if opening is None and not failed:
        return None
    start = opening.end() if opening else 0
    marker = _RETURNED.search(text, start)
    spoken = text[start : marker.start() if marker else None]
    action: Action = "delayed" if _DELAYED.search(text, 0, _OPENING_CHARS) and not failed else "failed"
    reasons = _reasons(spoken)
    named = [person.address for person in parse_addresses([failed], most)[0] if "@" in person.address]
    folded = {address.casefold(): reason for address, reason in reasons.items()}
    recipients = [
        _recipient(address, folded.get(address.casefold(), ""), action)
        for address in (dict.fromkeys(named) or reasons)
    ]
    return Told(tuple(recipients[:most]), text[marker.end() :].lstrip() if marker else "")


def plain(value: str, most: int) -> str:
    """One line of printable text, at most ``most`` characters."""
    cut = value[: 4 * most]
    return " ".join("".join(c if c.isprintable() else " " for c in cut).split())[:most].rstrip()


def status_in(text: str) -> str | None:
    """The first enhanced status code (RFC 3463 §2) of a text."""
    match = _STATUS.search(text)
    return match[1] if match else None


def _reasons(spoken: str) -> dict[str, str]:
    """Each address that begins a line, with all that is said before the next one; one that comes again
    goes on with its own."""
    found: dict[str, list[str]] = {}
    matches = list(_RECIPIENT.finditer(spoken))
    for index, match in enumerate(matches):
        end = matches[index + 1].start() if index + 1 < len(matches) else len(spoken)
        found.setdefault(match[1], []).append(spoken[match.end() : end])
    return {address: "".join(pieces) for address, pieces in found.items()}


def _recipient(address: str, reason: str, action: Action) -> ReportedRecipient:
    paragraphs = [part for part in _PARAGRAPH.split(reason.replace("\r", "")) if part.strip()]
    spoken = next((part for part in paragraphs if _SMTP.search(part)), paragraphs[0] if paragraphs else "")
    return ReportedRecipient(
        address, None, action, status_in(reason), plain(spoken, MAX_DIAGNOSTIC).lstrip("# ") or None
    )
