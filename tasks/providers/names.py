"""Domains, host names and addresses, brought to the one form they are stored and compared in."""

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

import idna

from config.errors import UserError
from tasks.access import is_unprintable, quoted

_LONGEST_INPUT: Final = 1000
_LONGEST_NAME: Final = 253
_LONGEST_LOCAL_OCTETS: Final = 64
_LONGEST_ADDRESS_OCTETS: Final = 254
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ATEXT: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~")


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox's address: the part before the @ as given, the domain as lower-case A-label."""

    local: str
    domain: str

    @property
    def key(self) -> str:
        """The form that addresses are compared in."""
        return f"{self.local}@{self.domain}"


def normalise_domain(text: str) -> str:
    """A mail domain as lower-case A-labels (UTS 46, IDNA 2008, RFC 5890), without the last dot.

    Raises `UserError` for what is no domain.
    """
    try:
        return _dns_name(text)
    except ValueError as fault:
        raise UserError(f"{quoted(text)} is not a domain: {fault}.") from None


def normalise_host(text: str) -> str:
    """A server's name as lower-case A-labels, or an IPv4 or IPv6 literal in its shortest form; a
    literal may come in brackets. Raises `UserError` for anything else."""
    host = text.strip()
    try:
        literal = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        address = ipaddress.ip_address(literal)
    except ValueError:
        pass
    else:
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
            raise UserError(f"{quoted(text)} is not a host: give the address without its zone (%…).")
        return address.compressed
    try:
        return _dns_name(host)
    except ValueError as fault:
        hint = " Give the port as an option of its own." if ":" in host else ""
        raise UserError(
            f"{quoted(text)} is not a host: {fault}. A DNS name or an IP address is wanted.{hint}"
        ) from None


def split_address(address: str) -> Address:
    """Take an address apart: a dot-atom or quoted string before the @ (RFC 5321 §4.1.2, with UTF-8
    by RFC 6531 §3.3), a domain after it; the local part is brought to NFC.

    Raises `UserError` telling what is wrong.
    """
    given = unicodedata.normalize("NFC", address[: _LONGEST_INPUT + 1].strip())
    local, at, domain = given.rpartition("@")
    fault = None
    if not at:
        fault = "it has no @"
    elif not local:
        fault = "nothing stands before the @"
    elif len(local.encode("utf-8", "replace")) > _LONGEST_LOCAL_OCTETS:
        fault = f"more than {_LONGEST_LOCAL_OCTETS} octets stand before the @"
    elif not _is_local_part(local):
        fault = "the part before the @ has characters or dots that may not stand there"
    if fault is None:
        try:
            label = _dns_name(domain)
            if len(local.encode()) + 1 + len(label) <= _LONGEST_ADDRESS_OCTETS:
                return Address(local, label)
            fault = f"it is longer than {_LONGEST_ADDRESS_OCTETS} octets"
        except ValueError as error:
            fault = f"{quoted(domain)} is not a domain: {error}"
    raise UserError(f"{quoted(address)} is not an e-mail address: {fault}.")


def _dns_name(text: str) -> str:
    """Raises `ValueError` whose text completes "… is not a domain:"."""
    name = text.strip()
    if not name:
        raise ValueError("it is empty")
    if len(name) > _LONGEST_INPUT:
        raise ValueError("it is too long")
    lowered = name.lower() if name.isascii() else ""
    if not lowered or any(label.startswith("xn--") for label in lowered.split(".")):
        try:
            lowered = idna.encode(name, uts46=True, std3_rules=True).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise ValueError("IDNA does not allow it") from None
    lowered = lowered.removesuffix(".")
    if len(lowered) > _LONGEST_NAME:
        raise ValueError(f"it is longer than {_LONGEST_NAME} characters")
    labels = lowered.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(
            "each part between dots must have 1 to 63 letters, digits or hyphens, no hyphen at its ends"
        )
    if _NUMERIC.fullmatch(labels[-1]):
        raise ValueError("it ends in a number")
    return lowered


def _is_local_part(local: str) -> bool:
    if any(is_unprintable(character) for character in local):
        return False
    if len(local) >= 2 and local.startswith('"') and local.endswith('"'):
        return re.fullmatch(r'(?:[^"\\]|\\[\x20-\x7e])*', local[1:-1]) is not None
    return all(
        atom and all(character in _ATEXT or not character.isascii() for character in atom)
        for atom in local.split(".")
    ) and not any(character.isspace() for character in local)
