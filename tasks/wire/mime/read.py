"""Raw bytes to a `Mail`: every field decoded, attachments digested, in time linear in the size."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from tasks.wire.bulk import Bulk, Raw
from tasks.wire.mime import values as v
from tasks.wire.mime.addresses import parse_addresses
from tasks.wire.mime.charsets import decode_lines, decode_prefix, lines_of
from tasks.wire.mime.dates import parse_date
from tasks.wire.mime.headers import read_block
from tasks.wire.mime.ids import first_id, ids, keyword_of, list_id_of
from tasks.wire.mime.reports import report_of
from tasks.wire.mime.structure import CONTENT, Leaf, Place, Walk, head_of
from tasks.wire.mime.subjects import base_subject
from tasks.wire.mime.transfer import decode_transfer, digest_transfer
from tasks.wire.mime.values import Address, Attachment, Disposition, Limits, Mail
from tasks.wire.mime.words import decode_words, unicode_of

MAX_TYPE = 255
_PEOPLE = frozenset(("from", "sender", "reply-to", "to", "cc", "bcc"))
_BODY_TYPES = frozenset(("text/plain", "text/html"))
_DEFAULT_LIMITS = Limits()


def read(raw: Raw | memoryview, limits: Limits = _DEFAULT_LIMITS) -> Mail:
    """Read one mail. Any bytes give a `Mail`: what could not be read is named in its ``defects``."""
    data = _bytes_of(raw)
    block = read_block(data, 0, len(data), limits)
    fields = block.fields
    walk = Walk(data, limits)
    defects = walk.defects
    if block.defects or len(fields) > limits.headers:
        defects.update(dict.fromkeys(block.defects))
        if len(fields) > limits.headers:
            fields = fields[: limits.headers]
            defects[v.HEADERS_TRUNCATED] = None
    headers, content, named, texts = _decoded(fields)
    content_type = walk.enter(head_of(content), block.body, len(data), Place())
    body = _body(data, walk, limits)
    people: dict[str, tuple[Address, ...]] = {}
    for name, values in named.items():
        people[name], more = parse_addresses(values, limits.addresses)
        if more:
            defects[v.ADDRESSES_TRUNCATED] = None
    subject = texts.get("subject") or ""
    references = texts.get("references")
    in_reply_to = texts.get("in-reply-to")
    message_id = texts.get("message-id")
    list_id = texts.get("list-id")
    auto_submitted = texts.get("auto-submitted")
    return Mail(
        subject=subject,
        message_id=first_id(message_id) if message_id else None,
        in_reply_to=ids(in_reply_to, limits.references) if in_reply_to else (),
        references=ids(references, limits.references) if references else (),
        from_=people.get("from", ()),
        sender=people.get("sender", ()),
        reply_to=people.get("reply-to", ()),
        to=people.get("to", ()),
        cc=people.get("cc", ()),
        bcc=people.get("bcc", ()),
        date=_date(texts, defects),
        headers=headers,
        text=body.text,
        html=body.html,
        attachments=body.attachments,
        auto_submitted=keyword_of(auto_submitted) if auto_submitted else None,
        list_id=list_id_of(list_id) if list_id else None,
        list_unsubscribe=texts.get("list-unsubscribe"),
        report=report_of(data, walk.leaves, texts, body.text, limits),
        content_type=_type_name(content_type),
        thread_subject=base_subject(subject),
        defects=tuple(defects),
        size=len(data),
    )


def part_bytes(raw: Raw | memoryview, part: str) -> bytes:
    """Decode one attachment of ``raw`` on demand, named by its ``Attachment.part``.

    Raises:
        KeyError: the mail has no such part.
    """
    data = _bytes_of(raw)
    block = read_block(data, 0, len(data), _DEFAULT_LIMITS)
    walk = Walk(data, _DEFAULT_LIMITS)
    content = _decoded(block.fields[: _DEFAULT_LIMITS.headers])[1]
    walk.enter(head_of(content), block.body, len(data), Place())
    for leaf in walk.leaves:
        if leaf.path == part:
            return decode_transfer(data[leaf.start : leaf.end], leaf.head.encoding).data
    raise KeyError(part)


class _Body(NamedTuple):
    text: str | None
    html: str | None
    attachments: tuple[Attachment, ...]


def _bytes_of(raw: Raw | memoryview) -> Raw:
    if isinstance(raw, bytes | Bulk):
        return raw
    whole = raw.obj
    return (
        whole if isinstance(whole, bytes) and raw.contiguous and raw.nbytes == len(whole) else raw.tobytes()
    )


def _decoded(
    fields: list[tuple[str, str]],
) -> tuple[tuple[tuple[str, str], ...], dict[str, str], dict[str, list[str]], dict[str, str]]:
    """Return all fields decoded; then, by lower-case name: the first raw value of those that the walk
    needs, all values of those that name people, their words not decoded, the first decoded value of any."""
    headers: list[tuple[str, str]] = []
    content: dict[str, str] = {}
    people: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for field in fields:
        name, value = field
        lower = name.lower()
        if lower in CONTENT:
            content.setdefault(lower, value)
        if not value.isascii() or "\0" in value:
            value = unicode_of(value)
        if lower in _PEOPLE:
            people.setdefault(lower, []).append(value)
        text = value.strip()
        if "=?" in text:
            text = decode_words(text).strip()
        headers.append(field if text is field[1] else (name, text))
        if lower not in texts:
            texts[lower] = text
    return tuple(headers), content, people, texts


def _date(fields: dict[str, str], defects: dict[str, None]) -> datetime | None:
    value = fields.get("date")
    if value is None:
        return None
    date = parse_date(value)
    if date is None:
        defects[v.DATE_UNREADABLE] = None
    return date


def _body(raw: Raw, walk: Walk, limits: Limits) -> _Body:
    texts: dict[str, list[str]] = {}
    attachments: list[Attachment] = []
    for leaf in walk.leaves:
        if not _is_body(leaf):
            attachments.append(_attachment(raw, leaf, walk.defects))
            continue
        pieces = texts.get(leaf.content_type)
        if pieces is None:
            texts[leaf.content_type] = [_body_text(raw, leaf, limits.text_chars, walk.defects)]
        elif (room := limits.text_chars - sum(map(len, pieces))) > 0:
            pieces.append(_body_text(raw, leaf, room, walk.defects))
        else:
            walk.defects[v.TEXT_TRUNCATED] = None
    plain, html = texts.get("text/plain"), texts.get("text/html")
    return _Body(
        None if plain is None else "\n".join(plain)[: limits.text_chars],
        None if html is None else "\n".join(html)[: limits.text_chars],
        tuple(attachments),
    )


def _is_body(leaf: Leaf) -> bool:
    """Whether a part is body text: RFC 8621 §4.1.4, without its media parts, which are attachments here."""
    if leaf.content_type not in _BODY_TYPES or leaf.head.disposition == "attachment":
        return False
    return leaf.nth == 0 or (leaf.parent != "related" and not leaf.head.name)


def _body_text(raw: Raw, leaf: Leaf, room: int, defects: dict[str, None]) -> str:
    # A kept character takes at most 4 bytes, each at most 3 characters long in transfer (and line ends).
    end = min(leaf.end, leaf.start + 16 * room + 1024)
    cut = end < leaf.end
    data, defect = decode_transfer(raw[leaf.start : end], leaf.head.encoding)
    if defect:
        defects[defect] = None
    label = leaf.head.charset
    if cut or len(data) > 4 * room:
        text = lines_of(decode_prefix(data[: 4 * room], label))
    else:
        text, right = decode_lines(data, label)
        if not right:
            defects[v.CHARSET_WRONG] = None
    if cut or len(text) > room:
        defects[v.TEXT_TRUNCATED] = None
    return text[:room]


def _attachment(raw: Raw, leaf: Leaf, defects: dict[str, None]) -> Attachment:
    head = leaf.head
    size, digest, defect = digest_transfer(raw, leaf.start, leaf.end, head.encoding)
    if defect:
        defects[defect] = None
    content_id = None if head.content_id is None else first_id(unicode_of(head.content_id))
    disposition: Disposition
    if head.disposition:
        # RFC 2183 §2.8: what is not known is an attachment.
        disposition = "inline" if head.disposition == "inline" else "attachment"
    else:
        disposition = "inline" if content_id else "attachment"
    return Attachment(
        leaf.path, head.name, _type_name(leaf.content_type), size, digest, content_id, disposition
    )


def _type_name(content_type: str) -> str:
    return unicode_of(content_type)[:MAX_TYPE]
