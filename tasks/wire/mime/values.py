"""What a read mail consists of: plain values, ready for Postgres ``text`` and for JSON.

Every string here is free of NUL and of lone surrogates, and every collection is bounded by `Limits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

Disposition = Literal["attachment", "inline"]
ReportKind = Literal["delivery", "complaint"]
Action = Literal["failed", "delayed", "delivered", "relayed", "expanded", "complained"]

# Defects are short codes, so that they can be counted and filtered; a `Mail` names each at most once.
HEADERS_TRUNCATED: Final = "headers-truncated"
HEADERS_UNENDED: Final = "headers-unended"
HEADER_MALFORMED: Final = "header-malformed"
BOUNDARY_MISSING: Final = "boundary-missing"
BOUNDARY_NOT_FOUND: Final = "boundary-not-found"
BOUNDARY_NOT_CLOSED: Final = "boundary-not-closed"
TOO_MANY_PARTS: Final = "too-many-parts"
TOO_DEEP: Final = "too-deep"
TEXT_TRUNCATED: Final = "text-truncated"
CHARSET_WRONG: Final = "charset-wrong"
BASE64_BROKEN: Final = "base64-broken"
UUENCODE_BROKEN: Final = "uuencode-broken"
ENCODING_UNKNOWN: Final = "encoding-unknown"
DATE_UNREADABLE: Final = "date-unreadable"
ADDRESSES_TRUNCATED: Final = "addresses-truncated"
REFERENCES_TRUNCATED: Final = "references-truncated"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of one mail is read and kept; beyond a bound the rest is left out and a defect says so."""

    header_bytes: int = 256 * 1024
    """Bytes of one header block (the message's own, or a part's) that are read."""
    headers: int = 1000
    """Fields of the message's own header block."""
    parts: int = 1000
    """Parts of any kind, multiparts included."""
    depth: int = 50
    """Multiparts inside multiparts; a deeper one is kept as one opaque attachment."""
    text_chars: int = 1024 * 1024
    """Characters of the text, and of the HTML, that are kept."""
    addresses: int = 1000
    """Addresses of one field (From, To, ...)."""
    references: int = 200
    """Message ids of References; the first and the newest are kept."""
    report_bytes: int = 256 * 1024
    """Bytes of each part of a delivery report that are read: what it says, and what it returns."""


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox of an address field (RFC 5322 §3.4); either side may be empty, not both."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A view of one part that is not body text. ``name`` is what the sender wrote: not a safe file name."""

    part: str
    """Part path as IMAP counts (RFC 9051 §6.4.5), such as ``2.1``."""
    name: str | None
    content_type: str
    size: int
    """Bytes, decoded."""
    digest: bytes
    """SHA-256 of the decoded bytes."""
    content_id: str | None
    """As ``<...>`` (RFC 2392)."""
    disposition: Disposition


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """What became of one recipient (RFC 3464 §2.3), or who complained (RFC 5965 §3.2).

    All of it was written by strangers: printable, on one line, bounded, and otherwise anything.
    """

    address: str
    original: str | None
    """The address the sender wrote, where the report tells (RFC 3464 §2.3.1)."""
    action: Action
    status: str | None
    """The enhanced code (RFC 3463), such as ``5.1.1``."""
    diagnostic: str | None
    """What the last server said, without the name of its protocol; of a complaint, its type."""


@dataclass(frozen=True, slots=True)
class Report:
    """What another system reports about a message that was sent earlier.

    ``message_id`` and ``attempt`` name that message, as far as the report returns it: its Message-ID, and
    the attempt header that every dispatch of ours carries. ``envelope_id`` is the ENVID it was sent under
    (RFC 3461 §4.4).
    """

    kind: ReportKind
    envelope_id: str | None
    message_id: str | None
    attempt: str | None
    recipients: tuple[ReportedRecipient, ...]
    """Empty where a complaint hides who complained."""


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail as people see it. The raw bytes stay the truth; this is what could be read of them."""

    subject: str
    message_id: str | None
    in_reply_to: tuple[str, ...]
    references: tuple[str, ...]
    from_: tuple[Address, ...]
    sender: tuple[Address, ...]
    reply_to: tuple[Address, ...]
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    date: datetime | None
    """Aware, in UTC."""
    headers: tuple[tuple[str, str], ...]
    """Every field in order: name as written, value unfolded and decoded."""
    text: str | None
    """The text/plain body, lines ended by LF."""
    html: str | None
    """The text/html body, not sanitised, lines ended by LF."""
    attachments: tuple[Attachment, ...]
    auto_submitted: str | None
    """The keyword in lower case (RFC 3834 §5)."""
    list_id: str | None
    """The identifier without its brackets (RFC 2919)."""
    list_unsubscribe: str | None
    report: Report | None
    """What it says of a message sent earlier, where it is a delivery report or a complaint."""
    content_type: str
    thread_subject: str
    """The base subject (RFC 5256 §2.1), case-folded: what threads fall back to."""
    defects: tuple[str, ...]
    size: int
    """Bytes, raw."""
