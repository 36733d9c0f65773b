"""Addresses of senders and recipients, as they are asked for and as they go on the wire."""

import re
from dataclasses import dataclass
from typing import Final

import idna

from tasks.outbound.errors import AddressInvalid, HeaderInjection

LONGEST_LOCAL: Final = 64
"""Octets before the @ (RFC 5321 §4.5.3.1.1)."""
LONGEST_DOMAIN: Final = 253
LONGEST_NAME: Final = 500

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DOT_ATOM: Final = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
    r"(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+)*"
)
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.){0,62}"')
_HOST: Final = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_LITERAL: Final = re.compile(r"\[(?:[0-9.]{7,15}|IPv6:[0-9A-Fa-f:.]{2,45})\]")


@dataclass(frozen=True, slots=True)
class Address:
    """One person: a display name, which may be empty, and ``spec``, local part @ A-label domain."""

    name: str
    spec: str

    @property
    def ascii(self) -> bool:
        """False where the address itself needs SMTPUTF8 (RFC 6531)."""
        return self.spec.isascii()


def clean(value: str, field: str) -> str:
    """``value``, fit for a header. Raises `HeaderInjection` naming ``field``."""
    if _CONTROL.search(value):
        raise HeaderInjection(f"{field} holds a line end or another control character. Take it out.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise HeaderInjection(f"{field} holds half a surrogate pair, which is no character.") from None
    return value


def parse(value: object, field: str) -> Address:
    """One address: ``"a@b.example"``, ``"Anna <a@b.example>"`` or ``{"name": …, "address": …}``.

    Raises `AddressInvalid`, or `HeaderInjection`; both name the field.
    """
    name: object
    match value:
        case str():
            name, spec = _split(clean(value, field).strip())
        case {"address": str(given), **rest} if set(rest) <= {"name"}:
            name, spec = rest.get("name") or "", clean(given, field).strip()
        case _:
            raise AddressInvalid(f'{field}: give an address as text, or as {{"name", "address"}}.')
    if not isinstance(name, str):
        raise AddressInvalid(f"{field}: a name is text.")
    if len(name) > LONGEST_NAME:
        raise AddressInvalid(f"{field}: a display name has at most {LONGEST_NAME} characters.")
    return Address(clean(name, field).strip(), normalise(spec, field))


def _split(text: str) -> tuple[str, str]:
    if not text.endswith(">"):
        return "", text
    name, _, spec = text[:-1].rpartition("<")
    name = name.strip()
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return name, spec.strip()


def normalise(spec: str, field: str) -> str:
    """``spec`` with its domain as lower-case A-label. Raises `AddressInvalid` naming ``field``."""
    local, at, domain = spec.rpartition("@")
    if not at or not local or not domain:
        raise _invalid(spec, field)
    if len(local.encode()) > LONGEST_LOCAL or not (_DOT_ATOM.fullmatch(local) or _QUOTED.fullmatch(local)):
        raise _invalid(spec, field)
    if _LITERAL.fullmatch(domain):
        return spec
    if domain.isascii():
        ascii_domain = domain.lower()
    else:
        try:
            ascii_domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError:
            raise _invalid(spec, field) from None
    if len(ascii_domain) > LONGEST_DOMAIN or not _HOST.fullmatch(ascii_domain):
        raise _invalid(spec, field)
    return f"{local}@{ascii_domain}"


def _invalid(spec: str, field: str) -> AddressInvalid:
    shown = "".join(c if c.isprintable() else "?" for c in spec[:100])
    return AddressInvalid(f'{field}: "{shown}" is no mail address. Write it like anna@example.org.')
