"""The header of a message that came as bytes: just enough of it to send it."""

import re
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.errors import MessageError
from email.utils import getaddresses
from typing import Final

from tasks.outbound.addresses import Address, normalise
from tasks.outbound.errors import AddressInvalid, HeaderInjection, MessageRefused

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_FIELD: Final = re.compile(rb"([!-9;-~]{1,900})[ \t]*:")
_MOST_LINES: Final = 10_000
_MESSAGE_ID: Final = re.compile(r"<[^\s<>]{1,990}>")


@dataclass(frozen=True, slots=True)
class RawHeader:
    """``fields`` are (lower-case name, whole lines with CRLF); ``body`` follows the empty line."""

    fields: tuple[tuple[str, bytes], ...]
    body: bytes

    @classmethod
    def of(cls, raw: bytes) -> "RawHeader":
        """Part the header from the body; every line end becomes CRLF. Raises `MessageRefused`."""
        if not raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r"):
            raw = _LINE_END.sub(b"\r\n", raw)
        if b"\0" in raw:
            raise MessageRefused("the raw message holds a NUL byte (RFC 5322 §4).")
        head, _, body = raw.partition(b"\r\n\r\n") if not raw.startswith(b"\r\n") else (b"", b"", raw[2:])
        fields: list[tuple[str, bytes]] = []
        for line in head.split(b"\r\n", _MOST_LINES) if head else []:
            if line[:1] in (b" ", b"\t") and fields:
                fields[-1] = (fields[-1][0], fields[-1][1] + line + b"\r\n")
            elif match := _FIELD.match(line):
                fields.append((match[1].decode("ascii").lower(), line + b"\r\n"))
            elif line:
                raise MessageRefused("the raw message does not begin with a header (RFC 5322 §2.2).")
        if any(len(line) > 998 for line in body.split(b"\r\n")):
            raise MessageRefused("the raw message has a line of more than 998 bytes; encode that part.")
        return cls(tuple(fields), body)

    @property
    def names(self) -> frozenset[str]:
        """Lower-case names of all fields."""
        return frozenset(name for name, _ in self.fields)

    @property
    def ascii(self) -> bool:
        """False where a field holds raw UTF-8 (RFC 6532)."""
        return all(lines.isascii() for _, lines in self.fields)

    @property
    def message_id(self) -> str | None:
        """The Message-ID, where there is a proper one."""
        found = [_MESSAGE_ID.fullmatch(self.text("message-id").strip())] if "message-id" in self.names else []
        if "message-id" in self.names and not (found and found[0]):
            raise MessageRefused("the raw message's Message-ID must look like <id@example.org>.")
        return found[0][0] if found and found[0] else None

    def text(self, name: str) -> str:
        """The decoded value of the first field of that name, on one line; empty where there is none."""
        for field, lines in self.fields:
            if field == name:
                try:
                    parsed = message_from_bytes(lines + b"\r\n", policy=policy.default.clone(utf8=True))
                    found = str(parsed.get(name, "")).replace("\0", "").encode("utf-8", "replace").decode()
                    return " ".join(found.split())
                except (MessageError, ValueError, LookupError, AttributeError, TypeError):
                    return ""  # the standard parser's own faults with odd fields
        return ""

    def addresses(self, name: str) -> list[Address]:
        """The addresses of every field of that name. Raises `AddressInvalid`."""
        values = [
            lines.partition(b":")[2].replace(b"\r\n", b"").decode("utf-8", "replace")
            for field, lines in self.fields
            if field == name
        ]
        found = []
        for shown, spec in getaddresses(values):
            if not spec and not shown:
                continue
            try:
                found.append(Address("", normalise(spec, name)))
            except HeaderInjection as error:
                raise AddressInvalid(str(error)) from None
        return found

    def without_bcc(self) -> bytes:
        """The message again, with CRLF, without any Bcc field."""
        kept = [lines for name, lines in self.fields if name not in ("bcc", "resent-bcc")]
        return b"".join([*kept, b"\r\n", self.body])
