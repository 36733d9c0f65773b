"""What both sides agree on after the login, in one round trip: ID (RFC 2971) and ENABLE (RFC 5161).

A server that offers one of them and refuses it is served without: GMX and Exchange each refuse a form of ID
that the other wants, and others (163.com) open no folder for a client without a name.
"""

from dataclasses import dataclass
from typing import Final

from tasks.wire.imap.channel import Channel
from tasks.wire.imap.scanner import Data, Status

OURS: Final = b'ID ("name" "mailwright")'


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for the session: extensions that are ``enabled``, upper case."""

    enabled: frozenset[str] = frozenset()


def agree(channel: Channel, offered: frozenset[str], *, qresync: bool) -> Terms:
    """Introduce ourselves and enable what is offered and wanted."""
    wanted = ["QRESYNC"] if qresync and {"QRESYNC", "ENABLE"} <= offered else []
    commands = [OURS] if "ID" in offered else []
    if wanted:
        commands.append(b"ENABLE " + " ".join(wanted).encode())
    enabled: set[str] = set()

    def told(response: Data | Status) -> None:
        head = response.parts[0] if isinstance(response, Data) else b""
        if isinstance(head, bytes) and head[:8].upper() == b"ENABLED ":
            enabled.update(head[8:].decode("ascii", "replace").upper().split())

    tags = [channel.tag() for _ in commands]
    if commands:
        channel.write(b"".join(b"%s %s\r\n" % pair for pair in zip(tags, commands, strict=True)))
    for tag in tags:
        channel.finish(tag, told)
    return Terms(frozenset(enabled & set(wanted)))
