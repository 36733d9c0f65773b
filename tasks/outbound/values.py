"""What a message is before it is bytes: the JSON that every door takes, read and checked.

The published form is ``schema/messages/outbound.schema.json``; this module is its judge at run time.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from tasks.outbound.addresses import Address, clean, parse
from tasks.outbound.errors import (
    HeaderForbidden,
    MessageRefused,
    MessageTooBig,
    NoRecipients,
)

LIFETIME: Final = timedelta(days=5)
"""How long a message is tried unless ``expires_at`` says otherwise (RFC 5321 §4.5.4.1)."""
MOST_BYTES: Final = 50 * 2**20
"""Bytes of text, HTML and decoded attachments together, or of raw."""
MOST_ATTACHMENTS: Final = 200
MOST_HEADERS: Final = 100
LONGEST_HEADER: Final = 8000
LONGEST_SUBJECT: Final = 998
MOST_REFERENCES: Final = 200
LONGEST_TEMPLATE: Final = 2**18
"""Characters of each part of a template, and of its variables as JSON."""

_BESIDE_RAW: Final = frozenset({"raw", "from", "to", "cc", "bcc", "priority", "not_before", "expires_at"})
FIELDS: Final = _BESIDE_RAW | {
    "reply_to", "subject", "text", "html", "attachments", "headers", "in_reply_to", "references",
    "reply_to_message", "template", "variables",
}  # fmt: skip
_FORBIDDEN: Final = frozenset({
    "from", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "mime-version", "in-reply-to",
    "references", "sender", "return-path", "received", "delivered-to", "envelope-to", "dkim-signature",
})  # fmt: skip
_FIELD_NAME: Final = re.compile(r"[!-9;-~]{1,76}")
_MIME_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")
_MESSAGE_ID: Final = re.compile(r"<[^\s<>]{1,990}>")


@dataclass(frozen=True, slots=True)
class Attachment:
    """``inline`` ones belong to the HTML, which names them by ``content_id`` (RFC 2392)."""

    name: str
    content_type: str
    content: bytes
    inline: bool
    content_id: str | None


@dataclass(frozen=True, slots=True)
class Sources:
    """A template's own words, or what was made of them."""

    subject: str | None
    text: str | None
    html: str | None


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message as asked for, checked. ``sender`` None is the mailbox itself; ``raw`` excludes all
    that would write a header or a body."""

    sender: Address | None
    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    reply_to: tuple[Address, ...]
    subject: str
    text: str | None
    html: str | None
    attachments: tuple[Attachment, ...]
    headers: tuple[tuple[str, str], ...]
    in_reply_to: str | None
    references: tuple[str, ...]
    raw: bytes | None

    @property
    def recipients(self) -> int:
        """How many are named, for raw ones perhaps none: its own header names them."""
        return len(self.to) + len(self.cc) + len(self.bcc)


@dataclass(frozen=True, slots=True)
class Order:
    """A wish as it comes to a door: the JSON of a message, whatever it holds, and its idempotency key."""

    message: object
    idempotency_key: object = None


def order_of(item: object, key: str | None = None) -> Order:
    """One of many: ``{"message": …, "idempotency_key": …}``; ``key`` where it has none. What is no such
    object is refused like a message that is none."""
    match item:
        case {"message": message, **rest} if set(rest) <= {"idempotency_key"}:
            own = rest.get("idempotency_key")
            return Order(message, key if own is None else own)
        case _:
            return Order(None, key)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a door answers: committed with its transaction. ``duplicate``: the key was known, and
    ``uid`` is the first message's."""

    uid: UUID
    duplicate: bool


def read(message: Mapping[str, Any]) -> OutgoingMessage:
    """Check the JSON of a message. Raises `MessageRefused` or a kind of it, with the way on."""
    unknown = sorted(set(message) - FIELDS)
    if unknown:
        raise MessageRefused(
            f'a message has no field "{unknown[0][:50]}". It has: {", ".join(sorted(FIELDS))}.'
        )
    given = {name: value for name, value in message.items() if value is not None}
    if "raw" in given and set(given) - _BESIDE_RAW:
        extra = sorted(set(given) - _BESIDE_RAW)[0]
        raise MessageRefused(f'"raw" is a whole message; leave out "{extra}".')
    _check_times(given)
    _check_original(given)
    given |= _rendered(given)
    found = OutgoingMessage(
        sender=parse(given["from"], "from") if "from" in given else None,
        to=_addresses(given, "to"),
        cc=_addresses(given, "cc"),
        bcc=_addresses(given, "bcc"),
        reply_to=_addresses(given, "reply_to"),
        subject=clean(_text(given, "subject", LONGEST_SUBJECT) or "", "subject"),
        text=_text(given, "text", MOST_BYTES),
        html=_text(given, "html", MOST_BYTES),
        attachments=_attachments(given.get("attachments", [])),
        headers=_headers(given.get("headers", {})),
        in_reply_to=_ids(given, "in_reply_to")[0] if "in_reply_to" in given else None,
        references=_ids(given, "references") if "references" in given else (),
        raw=_base64(given["raw"], "raw") if "raw" in given else None,
    )
    if found.raw is None and not found.recipients:
        raise NoRecipients("the message has no recipients. Name someone in to, cc or bcc.")
    if found.raw is not None and not found.raw.strip():
        raise MessageRefused('"raw" is empty.')
    _check_size(found)
    return found


def _check_original(given: Mapping[str, Any]) -> None:
    """``reply_to_message``: the door turns it into in_reply_to and references, in the database."""
    original = given.get("reply_to_message")
    if original is None:
        return
    both = [name for name in ("in_reply_to", "references") if name in given]
    if both:
        raise MessageRefused(f'"reply_to_message" says what is answered; leave out "{both[0]}".')
    try:
        if not isinstance(original, str):
            raise ValueError
        UUID(original)
    except ValueError:
        raise MessageRefused("reply_to_message must be the id of a stored message of this mailbox.") from None


def _rendered(given: Mapping[str, Any]) -> dict[str, Any]:
    """Subject, text and HTML as the template makes them of the variables; nothing where there is none.

    A template that is still a name is checked when the door has put its words in the name's place.
    """
    variables = given.get("variables", {})
    if "template" not in given:
        if "variables" in given:
            raise MessageRefused('"variables" are for a template; name it in "template".')
        return {}
    both = [name for name in ("subject", "text", "html") if name in given]
    if both:
        raise MessageRefused(f'the template writes subject, text and html; leave out "{both[0]}".')
    if not isinstance(variables, Mapping) or not all(isinstance(name, str) for name in variables):
        raise MessageRefused("variables must be an object.")
    if _json_length(variables) > LONGEST_TEMPLATE:
        raise MessageTooBig(f"variables are longer than {LONGEST_TEMPLATE} characters of JSON.")
    if isinstance(given["template"], str):
        return {}
    from tasks.outbound.rendering import (
        render,  # here, because Jinja2 takes longer to load than most commands
    )

    made = render(sources(given["template"]), variables)
    return {name: part for name in ("subject", "text", "html") if (part := getattr(made, name)) is not None}


def _json_length(value: object) -> int:
    try:
        return len(json.dumps(value))
    except (TypeError, ValueError, RecursionError):
        raise MessageRefused("variables must be JSON.") from None


def sources(template: object) -> Sources:
    """The words of a template: an object with subject, text and html, of which the mail's body is one.
    Raises `MessageRefused`."""
    if not isinstance(template, Mapping) or not set(template) <= {"name", "subject", "text", "html"}:
        raise MessageRefused("template must be a name, or an object with subject, text and html.")
    parts = {name: _text(template, name, LONGEST_TEMPLATE) for name in ("subject", "text", "html")}
    if parts["text"] is None and parts["html"] is None:
        raise MessageRefused("a template needs text or html.")
    clean(parts["subject"] or "", "the template's subject")
    return Sources(**parts)


def _text(given: Mapping[str, Any], field: str, longest: int) -> str | None:
    value = given.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise MessageRefused(f"{field} must be text.")
    if len(value) > longest:
        raise MessageTooBig(f"{field} is longer than {longest} characters.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise MessageRefused(f"{field} holds half a surrogate pair, which is no character.") from None
    return value


def _addresses(given: Mapping[str, Any], field: str) -> tuple[Address, ...]:
    value = given.get(field, [])
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(parse(item, field) for item in items)


def _ids(given: Mapping[str, Any], field: str) -> tuple[str, ...]:
    value = given[field]
    ids = value.split() if isinstance(value, str) and clean(value, field) else value
    if not isinstance(ids, list | tuple) or not ids or len(ids) > MOST_REFERENCES:
        raise MessageRefused(f"{field} must hold Message-IDs like <id@example.org>.")
    for item in ids:
        if not isinstance(item, str) or not _MESSAGE_ID.fullmatch(clean(item, field)) or not item.isascii():
            raise MessageRefused(f"{field} must hold Message-IDs like <id@example.org>.")
    return tuple(ids)


def _headers(value: object) -> tuple[tuple[str, str], ...]:
    """Extra headers: an object, or a list of [name, value] where a name repeats."""
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, list) or len(pairs) > MOST_HEADERS:
        raise MessageRefused(f"headers must be an object of at most {MOST_HEADERS} names and values.")
    found = []
    for pair in pairs:
        match pair:
            case (str(name), str(text)) | [str(name), str(text)]:
                found.append((_header_name(name), clean(text, f"header {name}").strip()))
            case _:
                raise MessageRefused("each header needs a name and a text.")
        if len(found[-1][1]) > LONGEST_HEADER:
            raise MessageTooBig(f"the header {name} is longer than {LONGEST_HEADER} characters.")
    return tuple(found)


def _header_name(name: str) -> str:
    clean(name, "a header's name")
    if not _FIELD_NAME.fullmatch(name):
        raise MessageRefused(f'"{name[:50]}" is no header name (RFC 5322 §2.2).')
    lower = name.lower()
    if lower in _FORBIDDEN or lower.startswith(("content-", "resent-", "x-mailwright-")):
        raise HeaderForbidden(f'the header "{name}" is not set this way. Leave it out, or use its own field.')
    return name


def _attachments(value: object) -> tuple[Attachment, ...]:
    if not isinstance(value, list | tuple) or len(value) > MOST_ATTACHMENTS:
        raise MessageRefused(f"attachments must be a list of at most {MOST_ATTACHMENTS}.")
    return tuple(_attachment(item, f"attachment {number}") for number, item in enumerate(value, 1))


def _attachment(item: object, field: str) -> Attachment:
    allowed = {"name", "content_type", "content", "inline", "content_id"}
    if not isinstance(item, Mapping) or not set(item) <= allowed or "content" not in item:
        raise MessageRefused(f"{field} needs content, and may have name, content_type, inline, content_id.")
    name = clean(_text(item, "name", 250) or "", f"{field}: name")
    content_type = clean(
        _text(item, "content_type", 255) or "application/octet-stream", f"{field}: content_type"
    )
    if not _MIME_TYPE.fullmatch(content_type) or content_type.lower().startswith(("multipart/", "message/")):
        raise MessageRefused(f'{field}: "{content_type[:60]}" is no type for an attachment.')
    content_id = clean(_text(item, "content_id", 250) or "", f"{field}: content_id").strip("<>") or None
    if content_id is not None and not _MESSAGE_ID.fullmatch(f"<{content_id}>"):
        raise MessageRefused(f"{field}: content_id must be one word without < and >.")
    if content_id is not None and not content_id.isascii():
        raise MessageRefused(f"{field}: content_id must be ASCII.")
    inline = item.get("inline")
    if not isinstance(inline, bool | None):
        raise MessageRefused(f"{field}: inline is true or false.")
    return Attachment(
        name=name,
        content_type=content_type,
        content=_base64(item["content"], f"{field}: content"),
        inline=content_id is not None if inline is None else inline,
        content_id=content_id,
    )


def _base64(value: object, field: str) -> bytes:
    if not isinstance(value, str):
        raise MessageRefused(f"{field} must be base64 text.")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise MessageRefused(f"{field} is not base64.") from None


def _check_size(message: OutgoingMessage) -> None:
    size = len(message.raw or b"") + len(message.text or "") + len(message.html or "")
    size += sum(len(attachment.content) for attachment in message.attachments)
    if size > MOST_BYTES:
        raise MessageTooBig(f"the message has {size} bytes; at most {MOST_BYTES} are taken.")


def _check_times(given: Mapping[str, Any]) -> None:
    priority = given.get("priority", 0)
    if isinstance(priority, bool) or not isinstance(priority, int) or not -100 <= priority <= 100:
        raise MessageRefused("priority is a whole number from -100 to 100.")
    moments = {
        field: _moment(given[field], field) for field in ("not_before", "expires_at") if field in given
    }
    start = moments.get("not_before")
    end = moments.get("expires_at")
    if start is not None and end is not None and end <= start:
        raise MessageRefused("expires_at must be later than not_before.")


def _moment(value: object, field: str) -> datetime:
    try:
        moment = datetime.fromisoformat(clean(value, field)) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise MessageRefused(f"{field} must be an ISO 8601 time such as 2030-01-31T09:00:00+01:00.")
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
