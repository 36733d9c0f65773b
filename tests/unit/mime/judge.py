"""The judge: the same `Mail`, read by the standard parser (``email``, policy compat32).

The standard library finds the structure, decodes words, parameters, addresses, dates and transfer encodings.
What it has no opinion on is shared with the reader and tested by itself: which charset a wrong label means
(`charsets`), message ids, base subjects; which parts are body text (RFC 8621 §4.1.4) is restated here.
"""

import binascii
import hashlib
import re
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, message_from_string
from email.errors import HeaderParseError, InvalidBase64LengthDefect
from email.generator import BytesGenerator
from email.header import decode_header
from email.message import Message
from email.policy import compat32
from email.utils import collapse_rfc2231_value, getaddresses, parsedate_to_datetime
from io import BytesIO
from typing import Any

from tasks.wire.mime.charsets import clean, codec_of, decode, guess
from tasks.wire.mime.ids import first_id, ids, keyword_of, list_id_of
from tasks.wire.mime.subjects import base_subject
from tasks.wire.mime.values import Address, Attachment, Mail, Report, ReportedRecipient

warnings.filterwarnings("ignore", category=DeprecationWarning, module="email.message")  # it imports uu


def judge(raw: bytes) -> Mail:
    """Read ``raw`` with the standard parser. Defects are not compared and stay empty."""
    message = message_from_bytes(raw, policy=compat32)
    # The parser's own __getitem__ wraps 8-bit values into Header objects, which hide encoded words.
    fields = [(name, unfold(value)) for name, value in message._headers]  # type: ignore[attr-defined]
    every: dict[str, list[str]] = {}
    for name, value in fields:
        every.setdefault(name.lower(), []).append(value)

    def text(name: str) -> str | None:
        return words(every[name][0].strip()).strip() if name in every else None

    def people(name: str) -> tuple[Address, ...]:
        found = getaddresses(every.get(name, []))
        return tuple(Address(words(n).strip(), clean(a)) for n, a in found if n or a)

    subject = text("subject") or ""
    message_id, replied, references = text("message-id"), text("in-reply-to"), text("references")
    list_id, auto = text("list-id"), text("auto-submitted")
    plain, html, attachments = body(message, raw)
    return Mail(
        subject=subject,
        message_id=first_id(message_id) if message_id else None,
        in_reply_to=ids(replied, 200) if replied else (),
        references=ids(references, 200) if references else (),
        from_=people("from"),
        sender=people("sender"),
        reply_to=people("reply-to"),
        to=people("to"),
        cc=people("cc"),
        bcc=people("bcc"),
        date=moment(every["date"][0]) if "date" in every else None,
        headers=tuple((name, words(value.strip()).strip()) for name, value in fields),
        text=plain,
        html=html,
        attachments=attachments,
        auto_submitted=keyword_of(auto) if auto else None,
        list_id=list_id_of(list_id) if list_id else None,
        list_unsubscribe=text("list-unsubscribe"),
        report=report(message),
        content_type=message.get_content_type(),
        thread_subject=base_subject(subject),
        defects=(),
        size=len(raw),
    )


def unfold(value: str) -> str:
    """One line of text: line ends go, what the parser kept of 8-bit bytes becomes characters."""
    value = value.replace("\r", "").replace("\n", "")
    return value if value.isascii() else guess(value.encode("ascii", "surrogateescape"))


def words(value: str) -> str:
    """Decode RFC 2047 as the standard does; a value it refuses (broken base64) stays as it is."""
    if "=?" not in value:
        return clean(value)
    try:
        found = decode_header(value)
    except HeaderParseError:
        return clean(value)
    pieces = []
    for piece, charset in found:
        if isinstance(piece, str):
            pieces.append(piece)
        elif charset is None:
            pieces.append(piece.decode("raw-unicode-escape"))
        else:
            pieces.append(decode(piece, charset.partition("*")[0])[0])
    return clean("".join(pieces))


def moment(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value.strip())
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def leaves(part: Message, path: str, parent: str, nth: int) -> Iterator[tuple[Message, str, str, int]]:
    if part.get_content_maintype() == "multipart" and part.is_multipart():
        prefix = path + "." if path else ""
        children: Any = part.get_payload()
        for index, child in enumerate(children):
            yield from leaves(child, f"{prefix}{index + 1}", part.get_content_subtype(), index)
    else:
        yield part, path or "1", parent, nth


def body(message: Message, raw: bytes) -> tuple[str | None, str | None, tuple[Attachment, ...]]:
    texts: dict[str, list[str]] = {}
    attachments = []
    for part, path, parent, nth in leaves(message, "", "", 0):
        content_type = part.get_content_type()
        broken = part.get_content_maintype() == "multipart"
        if broken:  # without its boundary, what it holds is text
            content_type = "text/plain"
        name = filename(part)
        disposition = part.get_content_disposition()
        data = content(part, raw)
        if broken and part is not message:
            # The line end before a boundary is the boundary's (RFC 2046 §5.1.1); the parser forgets it here.
            data = re.sub(rb"(\r\n|\r|\n)\Z", b"", data)
        inline = nth == 0 or (parent != "related" and not name)
        if content_type in ("text/plain", "text/html") and disposition != "attachment" and inline:
            label = None if broken else part.get_content_charset()
            text = decode(without_cr(data, label), label)[0]
            text = text.replace("\r", "") if "\n" in text else text.replace("\r", "\n")
            texts.setdefault(content_type, []).append(text)
            continue
        content_id = part.get("content-id")
        content_id = first_id(unfold(content_id)) if content_id else None
        if disposition is None:
            shown = "inline" if content_id else "attachment"
        else:
            shown = "inline" if disposition == "inline" else "attachment"
        attachments.append(
            Attachment(path, name, content_type, len(data), hashlib.sha256(data).digest(), content_id, shown)  # type: ignore[arg-type]
        )
    plain, html = texts.get("text/plain"), texts.get("text/html")
    return (
        None if plain is None else "\n".join(plain),
        None if html is None else "\n".join(html),
        tuple(attachments),
    )


def without_cr(data: bytes, label: str | None) -> bytes:
    """Line ends go before decoding, which matters only where CR stands inside a character; not in UTF-16."""
    wide = (codec_of(label or "utf-8") or "").startswith(("utf_16", "utf_32", "utf_7"))
    return data.replace(b"\r", b"") if b"\n" in data and not wide else data


def report(message: Message) -> Report | None:
    """A report that is one by the letter (RFC 3464, RFC 5965); bounces written for people have no judge."""
    found: dict[str, Message] = {}
    for part, _, _, _ in leaves(message, "", "", 0):
        found.setdefault(part.get_content_type(), part)
    inner: Any = found["message/rfc822"].get_payload() if "message/rfc822" in found else [Message()]
    returned = inner[0]
    name, attempt = returned["message-id"], returned["x-mailwright-attempt"]
    about = (first_id(name) if name else None, attempt)
    if "message/feedback-report" in found:
        groups: Any = found["message/feedback-report"].get_payload()
        fields = message_from_string(groups if isinstance(groups, str) else groups[0].as_string())
        kind, people = fields["feedback-type"], fields.get_all("original-rcpt-to", [])
        complained = tuple(ReportedRecipient(address, None, "complained", None, kind) for address in people)
        return Report("complaint", fields["original-envelope-id"], *about, complained)
    if "message/delivery-status" not in found:
        return None
    groups = found["message/delivery-status"].get_payload()
    recipients = tuple(
        ReportedRecipient(
            untyped(group["final-recipient"]) or "",
            untyped(group["original-recipient"]),
            group["action"],
            group["status"],
            untyped(group["diagnostic-code"]),
        )
        for group in groups
        if group["final-recipient"]
    )
    return Report("delivery", groups[0]["original-envelope-id"], *about, recipients)


def untyped(value: str | None) -> str | None:
    """What follows the type of an address or diagnostic, on one line."""
    return None if value is None else " ".join(value.partition(";")[2].split())


def filename(part: Message) -> str | None:
    """`Message.get_filename`, but 8-bit and RFC 2047 names are read too, as all mail readers do."""
    for header, param in (("content-disposition", "filename"), ("content-type", "name")):
        value = part.get_param(param, None, header)
        if value is not None:
            text = collapse_rfc2231_value(value) if isinstance(value, tuple) else words(unfold(str(value)))
            return clean(text.replace("\n", " ")).strip() or None
    return None


def content(part: Message, raw: bytes) -> bytes:
    """The decoded body; of a message within the message, its bytes written out again."""
    if part.is_multipart():
        out = BytesIO()
        linesep = "\r\n" if b"\r\n" in raw[:2000] else "\n"
        BytesGenerator(
            out, mangle_from_=False, maxheaderlen=0, policy=compat32.clone(linesep=linesep)
        ).flatten(part)
        data = out.getvalue().partition(linesep.encode() * 2)[2]
        # The generator ends a header with an empty line, also where the message inside had none (reports).
        ended = data + linesep.encode() + b"--"
        return data if ended in raw or raw.endswith(data) else data.removesuffix(linesep.encode())
    try:
        decoded: Any = part.get_payload(decode=True)
    except binascii.Error:
        return b""
    if any(isinstance(defect, InvalidBase64LengthDefect) for defect in part.defects):
        # Given up by the parser, its line ends lost: here text stays as it is, cut-off base64 gives the rest.
        kept: Any = part._payload  # type: ignore[attr-defined]  # get_payload() decodes it
        kept = kept.encode("ascii", "surrogateescape")
        pure = re.sub(rb"[\r\n=]", b"", kept)
        alphabet = re.fullmatch(rb"[A-Za-z0-9+/]*", pure)
        return binascii.a2b_base64(pure[:-1] + b"==") if alphabet else bytes(kept)
    return bytes(decoded)
