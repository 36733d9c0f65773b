"""Delivery reports and complaints as values (RFC 3464, RFC 5965), and bounces that only people can read.

    message/delivery-status ──> groups of fields: one for the message, one a recipient ──┐
    message/feedback-report ──> one group                                                ├──> Report
    a daemon's plain words (qmail, Exim, Exchange …) ──> `bounces` ──────────────────────┘
    message/rfc822, text/rfc822-headers: the message that was returned ──> its Message-ID, our attempt header

A message inside a message is a leaf, so a report that somebody forwards is no report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

from tasks.wire.bulk import Raw
from tasks.wire.mime import bounces
from tasks.wire.mime.headers import read_block
from tasks.wire.mime.ids import first_id
from tasks.wire.mime.structure import Leaf
from tasks.wire.mime.transfer import decode_transfer
from tasks.wire.mime.values import Action, Limits, Report, ReportedRecipient
from tasks.wire.mime.words import unicode_of

ATTEMPT_FIELD: Final = "x-mailwright-attempt"
MAX_ADDRESS: Final = 1000
MAX_ID: Final = 998

_STATUS_TYPES = frozenset({"message/delivery-status", "message/global-delivery-status"})  # RFC 6533 §4
_FEEDBACK_TYPE = "message/feedback-report"
_RETURNED_TYPES = frozenset(
    {
        "message/rfc822",
        "message/global",
        "text/rfc822-headers",
        "message/rfc822-headers",
        "message/global-headers",
    }
)
# RFC 6591 and RFC 6430: what failed a policy, and what was no spam after all, is nobody's complaint.
_NO_COMPLAINTS = frozenset({"auth-failure", "not-spam"})
_ACTIONS: Final[MappingProxyType[str, Action]] = MappingProxyType(
    {
        "failed": "failed",
        "failure": "failed",
        "delayed": "delayed",
        "delay": "delayed",
        "deferred": "delayed",
        "delivered": "delivered",
        "relayed": "relayed",
        "expanded": "expanded",
    }
)
_BY_CLASS: Final[MappingProxyType[str, Action]] = MappingProxyType(
    {"2": "delivered", "4": "delayed", "5": "failed"}
)
_FIELD = re.compile(r"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
_LINE_END = re.compile(r"\r\n|\n|\r")
_TYPE = re.compile(r"[ \t]*[A-Za-z0-9-]{1,40}[ \t]*;")
_ESCAPED = re.compile(r"\\x\{(10[0-9A-F]{4}|[0-9A-F]{1,5})\}")
_RECIPIENT_FIELDS = ("final-recipient", "original-recipient")

Fields = dict[str, str]


def report_of(
    raw: Raw, leaves: list[Leaf], fields: Fields, text: str | None, limits: Limits
) -> Report | None:
    """Return what a mail reports, None for nearly all of them.

    ``fields`` is its header by lower-case name, decoded; ``text`` its plain text. Any bytes are taken.
    """
    status: list[Leaf] = []
    returned: Leaf | None = None
    for leaf in leaves:
        kind = leaf.content_type
        if kind in _STATUS_TYPES:
            status.append(leaf)
        elif kind == _FEEDBACK_TYPE:
            return _complaint(raw, leaf, leaves, limits)
        elif returned is None and kind in _RETURNED_TYPES:
            returned = leaf
    if not status and not bounces.is_daemon(fields):
        return None
    groups = [group for leaf in status for group in _groups(_content(raw, leaf, limits))]
    recipients = _recipients(groups, limits.addresses)
    told = None if recipients else bounces.tell(fields, text or "", limits.addresses)
    if not recipients and (told is None or not told.recipients):
        return None
    header = _header(_content(raw, returned, limits), limits) if returned else {}
    if told is not None and not header:
        header = _header(told.returned.encode("utf-8", "replace"), limits)
    named = header.get("message-id") or _first(groups, "x-original-message-id") or fields.get("in-reply-to")
    return Report(
        "delivery",
        _short(_first(groups, "original-envelope-id"), MAX_ID),
        first_id(bounces.plain(named, MAX_ID)) if named else None,
        _short(header.get(ATTEMPT_FIELD), MAX_ID),
        recipients or (told.recipients if told else ()),
    )


def _complaint(raw: Raw, leaf: Leaf, leaves: list[Leaf], limits: Limits) -> Report | None:
    """RFC 5965 §3. Types not known are taken as ``other`` (§7.3)."""
    pairs = [pair for group in _groups(_content(raw, leaf, limits)) for pair in group]
    fields = _firsts(pairs)
    kind = bounces.plain(fields.get("feedback-type", "abuse"), 40).lower()
    if kind in _NO_COMPLAINTS:
        return None
    returned = next((other for other in leaves if other.content_type in _RETURNED_TYPES), None)
    header = _header(_content(raw, returned, limits), limits) if returned else {}
    people = [value for name, value in pairs if name == "original-rcpt-to"]
    if not people and "x-hmxmroriginalrecipient" in header:  # Microsoft's JMRP, in the message it returns
        people = [header["x-hmxmroriginalrecipient"]]
    addresses = dict.fromkeys(filter(None, map(_address, people[: limits.addresses])))
    named = header.get("message-id")
    return Report(
        "complaint",
        _short(fields.get("original-envelope-id"), MAX_ID),
        first_id(bounces.plain(named, MAX_ID)) if named else None,
        _short(header.get(ATTEMPT_FIELD), MAX_ID),
        tuple(ReportedRecipient(address, None, "complained", None, kind) for address in addresses),
    )


def _content(raw: Raw, leaf: Leaf, limits: Limits) -> bytes:
    end = min(leaf.end, leaf.start + limits.report_bytes)
    return decode_transfer(raw[leaf.start : end], leaf.head.encoding).data[: limits.report_bytes]


def _header(data: bytes, limits: Limits) -> Fields:
    """The header of a returned message: first value of each field."""
    return _firsts(
        (name.lower(), unicode_of(value)) for name, value in read_block(data, 0, len(data), limits).fields
    )


def _groups(data: bytes) -> list[list[tuple[str, str]]]:
    """Groups of fields (RFC 3464 §2.1): empty lines divide them, and so does a recipient that comes again."""
    groups: list[list[tuple[str, str]]] = [[]]
    unfolded = re.sub(r"(?:\r\n|\n|\r)[ \t]+(?=\S)", " ", unicode_of(data.decode("latin-1")))
    for line in _LINE_END.split(unfolded):
        field = _FIELD.match(line)
        if field is None:
            if not line.strip() and groups[-1]:
                groups.append([])
            continue
        name, value = field[1].lower(), field[2].strip()
        if name in _RECIPIENT_FIELDS and any(name == other for other, _ in groups[-1]):
            groups.append([])
        groups[-1].append((name, value))
    return groups


def _firsts(pairs: Iterable[tuple[str, str]]) -> Fields:
    firsts: Fields = {}
    for name, value in pairs:
        firsts.setdefault(name, value)
    return firsts


def _first(groups: list[list[tuple[str, str]]], wanted: str) -> str | None:
    return next((value for group in groups for name, value in group if name == wanted), None)


def _recipients(groups: list[list[tuple[str, str]]], most: int) -> tuple[ReportedRecipient, ...]:
    """One for each group that names a recipient; a group after it that names none still speaks of it."""
    found: list[Fields] = []
    for group in groups:
        fields = _firsts(group)
        if any(name in fields for name in _RECIPIENT_FIELDS):
            if len(found) == most:
                break
            found.append(fields)
        elif found:
            found[-1] = {**fields, **found[-1]}
    recipients: dict[tuple[str, Action], ReportedRecipient] = {}
    for fields in found:
        recipient = _recipient(fields)
        if recipient is not None:
            recipients.setdefault((recipient.address, recipient.action), recipient)
    return tuple(recipients.values())


def _recipient(fields: Fields) -> ReportedRecipient | None:
    original = _address(fields.get("original-recipient", ""))
    address = _address(fields.get("final-recipient", "")) or original
    if address is None:
        return None
    diagnostic = bounces.plain(
        _TYPE.sub("", fields.get("diagnostic-code", ""), count=1), bounces.MAX_DIAGNOSTIC
    )
    status = bounces.status_in(fields.get("status", ""))
    spoken = bounces.status_in(diagnostic)
    if spoken and (status is None or (status.endswith(".0.0") and status[0] == spoken[0])):
        status = spoken  # what the server said is more than "other" (RFC 3463 §3.1)
    word = re.match(r"[a-z]*", fields.get("action", "").lower())
    action = _ACTIONS.get(word[0] if word else "") or _BY_CLASS.get((status or "5")[0], "failed")
    return ReportedRecipient(address, original, action, status, diagnostic or None)


def _address(value: str) -> str | None:
    """The address of a typed one, ``rfc822; anna@x.example`` (RFC 3464 §2.3.1); None where there is none."""
    kind, semicolon, rest = value[: 4 * MAX_ADDRESS].partition(";")
    rest = rest if semicolon else kind
    if semicolon and kind.strip().lower() == "utf-8":  # RFC 6533 §3
        rest = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), rest)
    inside = re.search(r"<([^<>]+)>", rest)
    return bounces.plain(inside[1] if inside else rest, MAX_ADDRESS).replace(" ", "") or None


def _short(value: str | None, most: int) -> str | None:
    return bounces.plain(value, most) or None if value else None
