"""Commands about folders: LIST, SELECT and EXAMINE, STATUS, CREATE, UNSELECT (RFC 9051 §6.3)."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from tasks.wire.imap.channel import Channel, done, ignore, quoted
from tasks.wire.imap.errors import (
    CommandRefused,
    FolderAbsent,
    FolderUnavailable,
    ImapError,
    ServerBusy,
    absent,
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
    try:
        return Listing(channel, capabilities).read()
    except CommandRefused:
        if not _tells_special_uses(capabilities):
            raise
    return Listing(channel, frozenset()).read()  # the extended form was offered and is not understood


def _tells_special_uses(capabilities: frozenset[str]) -> bool:
    return {"SPECIAL-USE", "LIST-EXTENDED"} <= capabilities


class Listing:
    """A LIST of all folders, sent when it is made, read later."""

    def __init__(self, channel: Channel, capabilities: frozenset[str]) -> None:
        words = b" RETURN (SPECIAL-USE)" if _tells_special_uses(capabilities) else b""
        self._channel = channel
        self._found: list[ListItems] = []
        self._tag = channel.send(b'LIST "" "*"' + words)

    def read(self) -> list[ListedFolder]:
        """The folders; raises `CommandRefused`."""
        done(self._channel.finish(self._tag, self._hear), "LIST")
        return listed(self._found)

    def _hear(self, response: Data | Status) -> None:
        items = list_items(response) if isinstance(response, Data) else None
        if items is not None and len(self._found) < MOST_FOLDERS:
            self._found.append(items)


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
    return Statuses(channel, wire_names, condstore).read()


class Statuses:
    """STATUS of several folders: the first are sent when it is made, the answers are read later."""

    def __init__(self, channel: Channel, wire_names: Sequence[bytes], condstore: bool) -> None:
        self._channel = channel
        self._condstore = condstore
        self._words = b" (MESSAGES UIDNEXT UIDVALIDITY%s)" % (b" HIGHESTMODSEQ" if condstore else b"")
        self._waiting = deque(wire_names)
        self._asked: deque[tuple[bytes, bytes]] = deque()
        self._told: dict[bytes, dict[bytes, int | None]] = {}
        self._send()

    def read(self) -> dict[bytes, FolderStatus]:
        """What each folder said, by its wire name; those refused are left out."""
        found: dict[bytes, FolderStatus] = {}
        while self._asked:
            name, tag = self._asked.popleft()
            reply = self._channel.finish(tag, self._hear)
            if reply.kind != "OK" and busy(reply.response_code, clean(reply.text)):
                raise refusal("STATUS", reply.response_code, clean(reply.text))
            numbers = self._told.pop(_key(name), None)
            if numbers is None and len(self._told) == 1:  # told under another spelling of its name
                numbers = self._told.popitem()[1]
            if reply.kind == "OK" and numbers is not None and numbers.get(b"MESSAGES") is not None:
                found[name] = self._status(numbers)
            self._send()
        return found

    def _send(self) -> None:
        commands: list[bytes] = []
        while self._waiting and len(self._asked) < IN_FLIGHT:
            name = self._waiting.popleft()
            tag = self._channel.tag()
            self._asked.append((name, tag))
            commands.append(b"%s STATUS %s%s\r\n" % (tag, folder(name), self._words))
        if commands:
            self._channel.write(b"".join(commands))

    def _hear(self, response: Data | Status) -> None:
        items = status_items(response) if isinstance(response, Data) else None
        if items is not None:
            self._told[_key(items[0])] = items[1]

    def _status(self, numbers: Mapping[bytes, int | None]) -> FolderStatus:
        return FolderStatus(
            messages=numbers[b"MESSAGES"] or 0,
            uidnext=numbers.get(b"UIDNEXT") or None,
            uidvalidity=numbers.get(b"UIDVALIDITY") or None,
            highestmodseq=(numbers.get(b"HIGHESTMODSEQ") or None) if self._condstore else None,
        )


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
    kind = FolderAbsent if absent(reply.response_code, words) else FolderUnavailable
    return kind(
        f'The server does not open the folder "{shown_name(wire_name)}"{said(words)}',
        words=words,
        response_code=reply.response_code,
    )


def _key(name: bytes) -> bytes:
    return b"INBOX" if name.upper() == b"INBOX" else name
