"""From a checked message to the bytes that every attempt sends.

Message-ID, Date and boundaries are fixed here, once; Bcc is in the envelope and never in the bytes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Final
from uuid import UUID

from tasks.outbound import mime
from tasks.outbound.addresses import Address
from tasks.outbound.errors import (
    HeaderForbidden,
    MessageRefused,
    MessageTooBig,
    SenderNotAllowed,
    TooManyRecipients,
)
from tasks.outbound.raw import RawHeader
from tasks.outbound.values import Attachment, OutgoingMessage

ATTEMPT_HEADER: Final = "X-Mailwright-Attempt"
_ASCII: Final = re.compile(rb"[\x00-\x7f]*")


@dataclass(frozen=True, slots=True)
class Sender:
    """Who a mailbox may be: its own address and name, others it may send as, and its limits."""

    address: str
    name: str | None
    send_as: tuple[str, ...]
    max_recipients: int
    max_size: int | None


@dataclass(frozen=True, slots=True)
class Recipient:
    """``kind`` is to, cc or bcc."""

    address: str
    kind: str


@dataclass(frozen=True, slots=True)
class Composed:
    """What is stored before the first attempt. ``content`` ends its lines with CRLF."""

    envelope_from: str
    recipients: tuple[Recipient, ...]
    message_id: str
    subject: str
    content: bytes
    smtputf8: bool
    eight_bit: bool


def attempt_line(attempt: UUID) -> bytes:
    """The header that is prepended to the bytes at one attempt, by which a copy proves that attempt."""
    return f"{ATTEMPT_HEADER}: {attempt}\r\n".encode()


def compose(message: OutgoingMessage, sender: Sender, uid: UUID, now: datetime) -> Composed:
    """Fix a message's bytes. Raises `MessageRefused` or a kind of it."""
    composed = (
        _raw(message, sender, uid, now) if message.raw is not None else _built(message, sender, uid, now)
    )
    if len(composed.recipients) > sender.max_recipients:
        raise TooManyRecipients(f"the provider takes at most {sender.max_recipients} recipients a message.")
    if sender.max_size is not None and len(composed.content) > sender.max_size:
        raise MessageTooBig(
            f"the message has {len(composed.content)} bytes; the provider takes at most {sender.max_size}."
        )
    return composed


def check(message: OutgoingMessage, sender: Sender, uid: UUID, now: datetime) -> None:
    """Refuse now what `compose` would refuse later."""
    if message.raw is not None or sender.max_size is not None:
        compose(message, sender, uid, now)
        return
    _author(message, sender)
    if message.recipients > sender.max_recipients:
        raise TooManyRecipients(f"the provider takes at most {sender.max_recipients} recipients a message.")


def _author(message: OutgoingMessage, sender: Sender) -> Address:
    """From: the mailbox itself, or an address it may send as; local parts are compared as written."""
    if message.sender is None:
        return Address(sender.name or "", sender.address)
    require_sender(message.sender.spec, sender)
    return message.sender


def require_sender(spec: str, sender: Sender) -> None:
    """Raises `SenderNotAllowed`."""
    allowed = {address.lower() for address in (sender.address, *sender.send_as)}
    if spec.lower() not in allowed:
        raise SenderNotAllowed(
            f"this mailbox may not send as {spec}. Its own address is {sender.address}; "
            f"allow others with: mailwright mailbox edit {sender.address} --send-as {spec}"
        )


def _built(message: OutgoingMessage, sender: Sender, uid: UUID, now: datetime) -> Composed:
    author = _author(message, sender)
    message_id = new_message_id(uid, author.spec)
    lines = [mime.addresses("From", [author])]
    for name, people in (("To", message.to), ("Cc", message.cc), ("Reply-To", message.reply_to)):
        if people:
            lines.append(mime.addresses(name, people))
    if not message.to and not message.cc:
        lines.append(b"To: undisclosed-recipients:;\r\n")  # RFC 5322 §3.4
    lines.append(mime.unstructured("Subject", message.subject))
    lines.append(f"Date: {format_datetime(now)}\r\nMessage-ID: {message_id}\r\n".encode())
    if message.in_reply_to:
        lines.append(mime.tokens("In-Reply-To", [message.in_reply_to]))
    references = message.references or ((message.in_reply_to,) if message.in_reply_to else ())
    if references:
        lines.append(mime.tokens("References", references))
    lines.extend(mime.unstructured(name, value) for name, value in message.headers)
    lines.append(b"MIME-Version: 1.0\r\n")
    head, body = _body(message, uid)
    content = b"".join([*lines, *head, b"\r\n", body])
    return Composed(
        envelope_from=author.spec,
        recipients=envelope(message),
        message_id=message_id,
        subject=message.subject,
        content=content,
        smtputf8=not content.isascii() or any(not a.ascii for a in (author, *_everyone(message))),
        eight_bit=not content.isascii(),
    )


def _everyone(message: OutgoingMessage) -> Sequence[Address]:
    return (*message.to, *message.cc, *message.bcc)


def envelope(message: OutgoingMessage) -> tuple[Recipient, ...]:
    """Each address once, under the first field that names it."""
    found: dict[str, str] = {}
    for kind, people in (("to", message.to), ("cc", message.cc), ("bcc", message.bcc)):
        for person in people:
            found.setdefault(person.spec, kind)
    return tuple(Recipient(address, kind) for address, kind in found.items())


def new_message_id(uid: UUID, author: str) -> str:
    """From our own id, at the author's domain: unique and fixed before any attempt (RFC 5322 §3.6.4)."""
    return f"<{uid.hex}@{author.rpartition('@')[2].strip('[]').replace(':', '.')}>"


def _body(message: OutgoingMessage, uid: UUID) -> tuple[list[bytes], bytes]:
    inline = [a for a in message.attachments if a.inline and message.html is not None]
    attached = [a for a in message.attachments if a not in inline]
    part = mime.text_part("plain", message.text or "") if message.html is None else None
    if message.html is not None:
        part = mime.text_part("html", message.html)
        if inline:
            shown = [_attachment(a, "inline") for a in inline]
            # RFC 2387 §3.1: the type of the part that the others belong to must be said.
            part = _multipart("related", "r", uid, [part, *shown], ';\r\n type="text/html"')
        if message.text is not None:
            part = _multipart("alternative", "a", uid, [mime.text_part("plain", message.text), part])
    assert part is not None
    if attached:
        part = _multipart("mixed", "m", uid, [part, *(_attachment(a, "attachment") for a in attached)])
    return part


Part = tuple[list[bytes], bytes]


def _multipart(subtype: str, mark: str, uid: UUID, parts: Sequence[Part], more: str = "") -> Part:
    """The boundary holds ``=_``, which neither base64 nor quoted-printable text can (RFC 2045 §6.7)."""
    boundary = f"=_{mark}{uid.hex}"
    frame = f"--{boundary}".encode()
    # The line end before a boundary belongs to the boundary (RFC 2046 §5.1.1), so each part keeps its own.
    pieces = [b"".join([frame, b"\r\n", *head, b"\r\n", body, b"\r\n"]) for head, body in parts]
    kind = f'Content-Type: multipart/{subtype};\r\n boundary="{boundary}"{more}\r\n'
    return [kind.encode()], b"".join([*pieces, frame, b"--\r\n"])


def _attachment(attachment: Attachment, disposition: str) -> Part:
    name = attachment.name
    kind = f"Content-Type: {attachment.content_type}"
    shown = f"Content-Disposition: {'inline' if attachment.inline else disposition}"
    if name:
        kind += mime.parameter("name", name)
        shown += mime.parameter("filename", name)
    head = [f"{kind}\r\n{shown}\r\nContent-Transfer-Encoding: base64\r\n".encode()]
    if attachment.content_id:
        head.append(f"Content-ID: <{attachment.content_id}>\r\n".encode())
    return head, mime.base64_lines(attachment.content)


def _raw(message: OutgoingMessage, sender: Sender, uid: UUID, now: datetime) -> Composed:
    """A whole message as given: Bcc taken out, Date and Message-ID added where missing, all else kept."""
    assert message.raw is not None
    header = RawHeader.of(message.raw)
    authors = header.addresses("from")
    if len(authors) != 1:
        raise MessageRefused("a raw message needs one From with one address.")
    require_sender(authors[0].spec, sender)
    if message.sender is not None:
        require_sender(message.sender.spec, sender)
    forbidden = [name for name in header.names if name.startswith("x-mailwright-") or name == "return-path"]
    if forbidden:
        raise HeaderForbidden(f'a raw message must not hold the header "{forbidden[0]}".')
    recipients = envelope(message) or tuple(
        Recipient(person.spec, kind)
        for kind in ("to", "cc", "bcc")
        for person in dict.fromkeys(header.addresses(kind))
    )
    recipients = tuple({recipient.address: recipient for recipient in reversed(recipients)}.values())[::-1]
    if not recipients:
        raise MessageRefused("the raw message names nobody in To, Cc or Bcc; name someone in to.")
    author = (message.sender or authors[0]).spec
    message_id = header.message_id or new_message_id(uid, author)
    added = b"" if header.message_id else f"Message-ID: {message_id}\r\n".encode()
    if "date" not in header.names:
        added += f"Date: {format_datetime(now)}\r\n".encode()
    content = added + header.without_bcc()
    return Composed(
        envelope_from=author,
        recipients=recipients,
        message_id=message_id,
        subject=header.text("subject")[:998],
        content=content,
        smtputf8=not header.ascii or any(not r.address.isascii() for r in recipients) or not author.isascii(),
        eight_bit=not content.isascii(),
    )
