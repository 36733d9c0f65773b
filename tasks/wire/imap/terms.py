"""What both sides agree on after the login, in one round trip: ID (RFC 2971), ENABLE (RFC 5161) and
NAMESPACE (RFC 2342).

A server that offers one of them and refuses it is served without: GMX and Exchange each refuse a form of ID
that the other wants, and others (163.com) open no folder for a client without a name.
"""

from dataclasses import dataclass
from typing import Final

from tasks.wire.imap.channel import Channel
from tasks.wire.imap.items import namespaces
from tasks.wire.imap.scanner import Data, Status

OURS: Final = b'ID ("name" "mailwright")'


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for the session: extensions that are ``enabled``, upper case; prefixes of folders that are
    one's ``own``, and of those that are ``others``', or everybody's."""

    enabled: frozenset[str] = frozenset()
    own: tuple[bytes, ...] = ()
    others: tuple[bytes, ...] = ()

    def personal(self, wire_name: bytes) -> bool:
        """Whether a folder is one's own: the longest prefix decides, and without any it is."""
        own = max((len(prefix) for prefix in self.own if wire_name.startswith(prefix)), default=0)
        return not any(len(prefix) > own and wire_name.startswith(prefix) for prefix in self.others)


def agree(channel: Channel, offered: frozenset[str], *, qresync: bool) -> Terms:
    """Introduce ourselves and enable what is offered and wanted."""
    wanted = ["QRESYNC"] if qresync and {"QRESYNC", "ENABLE"} <= offered else []
    commands = [OURS] if "ID" in offered else []
    if wanted:
        commands.append(b"ENABLE " + " ".join(wanted).encode())
    if "NAMESPACE" in offered:
        commands.append(b"NAMESPACE")
    enabled: set[str] = set()
    spaces: tuple[list[bytes], list[bytes]] = ([], [])

    def told(response: Data | Status) -> None:
        nonlocal spaces
        spaces = (namespaces(response) if isinstance(response, Data) else None) or spaces
        head = response.parts[0] if isinstance(response, Data) else b""
        if isinstance(head, bytes) and head[:8].upper() == b"ENABLED ":
            enabled.update(head[8:].decode("ascii", "replace").upper().split())

    tags = [channel.tag() for _ in commands]
    if commands:
        channel.write(b"".join(b"%s %s\r\n" % pair for pair in zip(tags, commands, strict=True)))
    for tag in tags:
        channel.finish(tag, told)
    return Terms(frozenset(enabled & set(wanted)), *map(tuple, spaces))
