"""What untagged responses say: FETCH, STATUS, LIST and plain numbers (RFC 9051 §7.3 to 7.5).

Nothing here raises on what a server sends: what cannot be read gives None.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from itertools import pairwise
from typing import Final

from tasks.wire.imap.scanner import Data, Literal
from tasks.wire.imap.tokens import Broken, Cursor, Value
from tasks.wire.imap.values import UidSet

FETCH: Final = re.compile(rb"([0-9]+) FETCH ?\(", re.IGNORECASE)
NUMBER: Final = re.compile(rb"([0-9]{1,18}) ([A-Za-z]+)\s*\Z")
ITEM: Final = re.compile(
    rb" *(?:UID ([0-9]{1,18})(?=[ )])|FLAGS \(([^()\"\\]*(?:\\[^()\"\\]*)*)\)|INTERNALDATE \"([^\"]*)\""
    rb"|RFC822\.SIZE (-?[0-9]{1,18})(?=[ )])|MODSEQ \(([0-9]{1,20})\)"
    rb"|(BODY\[(?:HEADER)?\](?:<[0-9]+>)?|RFC822(?:\.HEADER)?) |(\)))",
    re.IGNORECASE,
)
UID: Final = re.compile(rb"[ (]UID ([0-9]{1,18})(?![0-9])", re.IGNORECASE)
NO_FLAG: Final = re.compile(rb'[\s()"{]')
BODY_NEXT: Final = re.compile(rb"(?:BODY\[(?:HEADER)?\]|RFC822(?:\.HEADER)?) ~?\Z", re.IGNORECASE)
BODY: Final = re.compile(rb"(BODY\[(HEADER)?\](<[0-9]+>)?|RFC822(\.HEADER)?)\Z", re.IGNORECASE)
STATUS: Final = re.compile(
    rb'STATUS (?:"([^"\\]*)"|([^\s()"{\\]+)) \(((?:[A-Z]+ [0-9]{1,18} ?)+)\)\s*\Z', re.IGNORECASE
)
VANISHED: Final = re.compile(rb"VANISHED (?:\(EARLIER\) )?([0-9,:]+)\s*\Z", re.IGNORECASE)
OBJECT_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,255}\Z")
"""RFC 8474 §7."""
DATE: Final = re.compile(
    rb"\s*(\d{1,2})-([A-Za-z]{3})-(\d{4}) (\d{1,2}):(\d{2}):(\d{2})(?: ([+-])(\d{2})(\d{2}))?\s*\Z"
)
MONTHS: Final = {
    name: number
    for number, name in enumerate(b"jan feb mar apr may jun jul aug sep oct nov dec".split(), start=1)
}


@dataclass(slots=True)
class FetchItems:
    """What one FETCH response told; None where it did not.

    ``told_body`` tells a body of NIL from no body at all.
    """

    uid: int | None = None
    flags: tuple[str, ...] | None = None
    modseq: int | None = None
    internal_at: datetime | None = None
    size: int | None = None
    email_id: str | None = None
    thread_id: str | None = None
    body: Literal | None = None
    told_body: bool = False


def fetch_items(data: Data) -> FetchItems | None:
    """A FETCH response, its items in any order; None for another response.

    Of a broken one the UID and the body are kept where they can be found, so that no message is
    mistaken for one that is not there.
    """
    head = data.parts[0]
    match = FETCH.match(head) if isinstance(head, bytes) else None
    if match is None:
        return None
    try:
        return _items(Cursor(data.parts, match.end()))
    except Broken:
        return _salvaged(data)


def _salvaged(data: Data) -> FetchItems | None:
    texts = [part for part in data.parts if isinstance(part, bytes)]
    uid = next((match for match in map(UID.search, texts) if match), None)
    if uid is None:
        return None
    found = FetchItems(uid=int(uid[1]))
    for before, part in pairwise(data.parts):
        if isinstance(before, bytes) and isinstance(part, Literal) and BODY_NEXT.search(before):
            _body(found, part)
    return found


def _items(cursor: Cursor) -> FetchItems:
    found = FetchItems()
    while True:
        match = ITEM.match(cursor.text, cursor.at)
        if match is None:
            if cursor.ended:  # some servers forget the parenthesis
                return found
            name = cursor.atom()
            _slow(found, name, cursor.value())
            continue
        cursor.at = match.end()
        match match.lastindex:
            case 1:
                found.uid = int(match[1])
            case 2:
                found.flags = flag_names(match[2])
            case 3:
                found.internal_at = internal_date(match[3])
            case 4:
                found.size = _size(int(match[4]))
            case 5:
                found.modseq = int(match[5])
            case 6:
                _body(found, cursor.value())
            case _:
                return found


def _slow(found: FetchItems, name: bytes, value: Value) -> None:
    """An item in an unusual form, or one that nobody asked for."""
    text = value.data if isinstance(value, Literal) else value
    match name.upper():
        case b"UID":
            found.uid = number(value)
        case b"RFC822.SIZE":
            found.size = number(value)
        case b"MODSEQ":
            found.modseq = number(value[0] if isinstance(value, list) and value else value)
        case b"INTERNALDATE":
            found.internal_at = internal_date(text) if isinstance(text, bytes) else None
        case b"FLAGS":
            found.flags = _flags(value)
        case b"EMAILID" | b"X-GM-MSGID":
            found.email_id = object_id(value)
        case b"THREADID" | b"X-GM-THRID":
            found.thread_id = object_id(value)
        case other if BODY.match(other):
            _body(found, value)
        case _:
            pass


def _flags(value: Value) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    words = [word for word in value if isinstance(word, bytes) and not NO_FLAG.search(word)]
    if len(words) < len(value):
        raise Broken("flags expected")  # an open quote among them takes in what follows
    return flag_names(b" ".join(words))


def _body(found: FetchItems, value: Value) -> None:
    found.told_body = True
    if isinstance(value, bytes):
        found.body = Literal(value, len(value))
    elif isinstance(value, Literal):
        found.body = value


def _size(told: int) -> int | None:
    return told if told >= 0 else None


def number(value: Value) -> int | None:
    """A number in any string form; None for NIL, negative ones and nonsense."""
    text = value.data if isinstance(value, Literal) else value
    if isinstance(text, bytes) and text.isdigit() and len(text) <= 20:
        return int(text)
    return None


def object_id(value: Value) -> str | None:
    """An identifier, in the parentheses of RFC 8474 §5 or without, as Gmail's; None for NIL and nonsense."""
    word = value[0] if isinstance(value, list) and len(value) == 1 else value
    return word.decode() if isinstance(word, bytes) and OBJECT_ID.match(word) else None


@lru_cache(maxsize=4096)
def flag_names(words: bytes) -> tuple[str, ...]:
    r"""Flags, sorted, without ``\Recent``, which is no property of the message (RFC 3501 §2.3.2)."""
    names = {word.decode("utf-8", "replace") for word in words.split()}
    return tuple(sorted(name for name in names if name.lower() != "\\recent" and name.isprintable()))


def internal_date(text: bytes) -> datetime | None:
    """INTERNALDATE (RFC 9051 §9, date-time) as an aware datetime in UTC; None for nonsense."""
    match = DATE.match(text)
    month = MONTHS.get(match[2].lower()) if match else None
    if match is None or month is None:
        return None
    zone = timedelta(hours=int(match[8] or 0), minutes=int(match[9] or 0))
    clock = (int(match[4]), int(match[5]), min(int(match[6]), 59))
    try:
        local = datetime(
            int(match[3]), month, int(match[1]), *clock, tzinfo=timezone(-zone if match[7] == b"-" else zone)
        )
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def numbered(data: Data) -> tuple[bytes, int] | None:
    """``* 7 EXISTS`` and its like as ``(b"EXISTS", 7)``."""
    head = data.parts[0]
    match = NUMBER.match(head) if isinstance(head, bytes) and len(data.parts) == 1 else None
    return (match[2].upper(), int(match[1])) if match else None


def vanished(data: Data) -> UidSet | None:
    """The UIDs of a VANISHED response, EARLIER or not (RFC 7162 §3.2.10); None for another response, or
    where they make no sense."""
    head = data.parts[0]
    match = VANISHED.match(head) if isinstance(head, bytes) and len(data.parts) == 1 else None
    if match is None:
        return None
    found: list[tuple[int, int]] = []
    for word in match[1].split(b","):
        ends = [int(end) for end in word.split(b":") if end.isdigit() and len(end) <= 10]
        if not 1 <= len(ends) <= 2 or word.count(b":") != len(ends) - 1 or min(ends) < 1:
            return None
        found.append((min(ends), max(ends)))
    return found


def status_items(data: Data) -> tuple[bytes, dict[bytes, int | None]] | None:
    """A STATUS response as the folder's wire name and its numbers (RFC 9051 §7.3.4)."""
    usual = STATUS.match(data.parts[0]) if isinstance(data.parts[0], bytes) else None
    if usual is not None:
        words = usual[3].upper().split()
        return usual[1] or usual[2] or b"", dict(zip(words[::2], map(int, words[1::2]), strict=True))
    cursor = _after(data, b"STATUS ")
    if cursor is None:
        return None
    try:
        name, values = _plain(cursor.value()), cursor.value()
    except Broken:
        return None
    if name is None or not isinstance(values, list):
        return None
    pairs = zip(values[::2], values[1::2], strict=False)
    return name, {key.upper(): number(value) for key, value in pairs if isinstance(key, bytes)}


@dataclass(frozen=True, slots=True)
class ListItems:
    """One LIST response: attributes as told, the delimiter (None for NIL), the name on the wire."""

    attributes: tuple[str, ...]
    delimiter: str | None
    name: bytes


def list_items(data: Data) -> ListItems | None:
    """A LIST response; what RFC 5258 adds behind the name is passed over."""
    cursor = _after(data, b"LIST ")
    if cursor is None:
        return None
    try:
        attributes, delimiter, name = cursor.value(), cursor.value(), _plain(cursor.value())
    except Broken:
        return None
    if not isinstance(attributes, list) or name is None:
        return None
    words = (word.decode("utf-8", "replace") for word in attributes if isinstance(word, bytes))
    mark = _plain(delimiter)
    return ListItems(
        tuple(word for word in words if word.isprintable()),
        mark.decode("utf-8", "replace") if mark else None,
        name,
    )


def namespaces(data: Data) -> tuple[list[bytes], list[bytes]] | None:
    """The prefixes of a NAMESPACE response (RFC 2342 §5): of one's own folders, and of other users' and
    everybody's; None for another response."""
    cursor = _after(data, b"NAMESPACE ")
    if cursor is None:
        return None
    try:
        own, others, shared = (_prefixes(cursor.value()) for _ in range(3))
    except Broken:
        return None
    return own, [*others, *shared]


def _prefixes(value: Value) -> list[bytes]:
    entries = value if isinstance(value, list) else []
    names = (_plain(entry[0]) for entry in entries if isinstance(entry, list) and entry)
    return [name for name in names if name is not None]


def _after(data: Data, word: bytes) -> Cursor | None:
    head = data.parts[0]
    if isinstance(head, bytes) and head[: len(word)].upper() == word:
        return Cursor(data.parts, len(word))
    return None


def _plain(value: Value) -> bytes | None:
    text = value.data if isinstance(value, Literal) else value
    return text if isinstance(text, bytes) else None
