"""Commands about folders: LIST, SELECT and EXAMINE, STATUS, CREATE, UNSELECT (RFC 9051 §6.3)."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from tasks.wire.imap.channel import Channel, ignore, quoted
from tasks.wire.imap.errors import (
    CommandRefused,
    FolderUnavailable,
    ImapError,
    ServerBusy,
    busy,
    clean,
    refusal,
    said,
)
from tasks.wire.imap.items import ListItems, list_items, numbered, status_items
from tasks.wire.imap.names import listed, shown_name
from tasks.wire.imap.scanner import Data, Status
from tasks.wire.imap.values import FolderStatus, ListedFolder, Selected

IN_FLIGHT: Final = 32
"""STATUS commands on the wire at once."""
MOST_FOLDERS: Final = 100_000
"""Folders of one mailbox that are believed."""


def folders(channel: Channel, capabilities: frozenset[str]) -> list[ListedFolder]:
    """LIST all; special uses are asked for where they must be (RFC 6154 §3)."""
    if {"SPECIAL-USE", "LIST-EXTENDED"} <= capabilities:
        try:
            return _list(channel, b'LIST "" "*" RETURN (SPECIAL-USE)')
        except CommandRefused:  # offered and not understood: the plain form is
            pass
    return _list(channel, b'LIST "" "*"')


def _list(channel: Channel, command: bytes) -> list[ListedFolder]:
    found: list[ListItems] = []

    def told(response: Data | Status) -> None:
        items = list_items(response) if isinstance(response, Data) else None
        if items is not None and len(found) < MOST_FOLDERS:
            found.append(items)

    channel.run(command, "LIST", told)
    return listed(found)


class _Description:
    """What a server tells about a folder between SELECT and its OK."""

    def __init__(self) -> None:
        self.messages: int | None = None
        self.numbers: dict[str, int] = {}
        self.without_modseq = False

    def told(self, response: Data | Status) -> None:
        """Take in an untagged response, or the tagged one, which may carry a code too."""
        if isinstance(response, Data):
            match numbered(response):
                case (b"EXISTS", count):
                    self.messages = count
            return
        if response.response_code == "NOMODSEQ":
            self.without_modseq = True
        elif response.argument.isdigit() and len(response.argument) <= 20:
            self.numbers[response.response_code] = int(response.argument)


def select(channel: Channel, wire_name: bytes, readonly: bool, condstore: bool) -> Selected:
    """EXAMINE or SELECT, with CONDSTORE where wanted (RFC 7162 §3.1.8)."""
    command = (b"EXAMINE " if readonly else b"SELECT ") + folder(wire_name)
    described = _Description()
    reply = channel.finish(channel.send(command + (b" (CONDSTORE)" if condstore else b"")), described.told)
    if condstore and reply.kind == "BAD":  # offered and not understood
        condstore = False
        described = _Description()
        reply = channel.finish(channel.send(command), described.told)
    if reply.kind != "OK":
        raise unavailable(wire_name, reply)
    described.told(reply)
    uidvalidity, messages = described.numbers.get("UIDVALIDITY"), described.messages
    if not uidvalidity or messages is None:
        raise FolderUnavailable(
            f'The server opens the folder "{shown_name(wire_name)}" without its UIDVALIDITY or its size.'
        )
    highest = described.numbers.get("HIGHESTMODSEQ") if condstore and not described.without_modseq else None
    return Selected(uidvalidity, described.numbers.get("UIDNEXT") or None, messages, highest or None)


def status(channel: Channel, wire_names: Sequence[bytes], condstore: bool) -> dict[bytes, FolderStatus]:
    """STATUS of each, `IN_FLIGHT` at once; those refused are left out."""
    words = b" (MESSAGES UIDNEXT UIDVALIDITY%s)" % (b" HIGHESTMODSEQ" if condstore else b"")
    asked: deque[tuple[bytes, bytes]] = deque()
    waiting = deque(wire_names)
    told: dict[bytes, dict[bytes, int | None]] = {}
    found: dict[bytes, FolderStatus] = {}

    def hear(response: Data | Status) -> None:
        items = status_items(response) if isinstance(response, Data) else None
        if items is not None:
            told[_key(items[0])] = items[1]

    while asked or waiting:
        while waiting and len(asked) < IN_FLIGHT:
            name = waiting.popleft()
            asked.append((name, channel.send(b"STATUS " + folder(name) + words)))
        name, tag = asked.popleft()
        reply = channel.finish(tag, hear)
        numbers = told.pop(_key(name), None)
        if numbers is None and len(told) == 1:  # told under another spelling of its name
            numbers = told.popitem()[1]
        if busy(reply.response_code, clean(reply.text)) and reply.kind != "OK":
            raise refusal("STATUS", reply.response_code, clean(reply.text))
        if reply.kind == "OK" and numbers is not None and (messages := numbers.get(b"MESSAGES")) is not None:
            found[name] = FolderStatus(
                messages=messages,
                uidnext=numbers.get(b"UIDNEXT") or None,
                uidvalidity=numbers.get(b"UIDVALIDITY") or None,
                highestmodseq=(numbers.get(b"HIGHESTMODSEQ") or None) if condstore else None,
            )
    return found


def create(channel: Channel, wire_name: bytes) -> None:
    """CREATE (RFC 9051 §6.3.4)."""
    reply = channel.finish(channel.send(b"CREATE " + folder(wire_name)), ignore)
    if reply.kind == "OK" or reply.response_code == "ALREADYEXISTS":
        return
    raise refusal("CREATE", reply.response_code, clean(reply.text))


def unselect(channel: Channel, wire_name: bytes, offered: bool) -> None:
    """UNSELECT; where it is not offered, CLOSE behind EXAMINE, which expunges nothing either."""
    if offered:
        channel.run(b"UNSELECT", "UNSELECT", ignore)
    else:
        channel.run(b"EXAMINE " + folder(wire_name), "EXAMINE", ignore)
        channel.run(b"CLOSE", "CLOSE", ignore)


def folder(wire_name: bytes) -> bytes:
    """A folder's name as a command's argument; raises `FolderUnavailable` where no command can name it."""
    try:
        return quoted(wire_name)
    except ValueError:
        raise FolderUnavailable(f'No command can name the folder "{shown_name(wire_name)}".') from None


def unavailable(wire_name: bytes, reply: Status) -> ImapError:
    """The error for NO or BAD to opening a folder."""
    words = clean(reply.text)
    if busy(reply.response_code, words):
        return ServerBusy(
            f"The server opens no folder now{said(words)}", words=words, response_code=reply.response_code
        )
    return FolderUnavailable(
        f'The server does not open the folder "{shown_name(wire_name)}"{said(words)}',
        words=words,
        response_code=reply.response_code,
    )


def _key(name: bytes) -> bytes:
    return b"INBOX" if name.upper() == b"INBOX" else name
