"""Commands about folders: LIST, SELECT and EXAMINE, STATUS, CREATE, UNSELECT (RFC 9051 §6.3)."""

import re
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
from tasks.wire.imap.fetching import seen_flags
from tasks.wire.imap.items import ListItems, fetch_items, list_items, numbered, status_items, vanished
from tasks.wire.imap.names import listed, shown_name
from tasks.wire.imap.scanner import Data, Status
from tasks.wire.imap.terms import Terms
from tasks.wire.imap.uidsets import Within, pieces
from tasks.wire.imap.values import Changes, FolderStatus, Known, ListedFolder, SeenFlags, Selected

IN_FLIGHT: Final = 32
"""STATUS commands on the wire at once."""
MOST_CHANGES: Final = 20_000
"""Changes held that opening a folder told; where there are more they are asked for by FETCH, and stream."""
MOST_FOLDERS: Final = 100_000
"""Folders of one mailbox that are believed."""
OBJECT_ID: Final = re.compile(rb"\(([A-Za-z0-9_-]{1,255})\)\Z")
"""RFC 8474 §7."""


def folders(channel: Channel, capabilities: frozenset[str], terms: Terms) -> list[ListedFolder]:
    """LIST all; special uses are asked for where they must be (RFC 6154 §3)."""
    try:
        return Listing(channel, capabilities, terms).read()
    except CommandRefused:
        if not _tells_special_uses(capabilities):
            raise
    return Listing(channel, frozenset(), terms).read()  # the extended form was offered and is not understood


def _tells_special_uses(capabilities: frozenset[str]) -> bool:
    return {"SPECIAL-USE", "LIST-EXTENDED"} <= capabilities


class Listing:
    """A LIST of all folders, sent when it is made, read later."""

    def __init__(self, channel: Channel, capabilities: frozenset[str], terms: Terms) -> None:
        self._terms = terms
        words = b" RETURN (SPECIAL-USE)" if _tells_special_uses(capabilities) else b""
        self._channel = channel
        self._found: list[ListItems] = []
        self._tag = channel.send(b'LIST "" "*"' + words)

    def read(self) -> list[ListedFolder]:
        """The folders; raises `CommandRefused`."""
        done(self._channel.finish(self._tag, self._hear), "LIST")
        return listed(self._found, self._terms.personal)

    def _hear(self, response: Data | Status) -> None:
        items = list_items(response) if isinstance(response, Data) else None
        if items is not None and len(self._found) < MOST_FOLDERS:
            self._found.append(items)


class _Description:
    """What a server tells about a folder between SELECT and its OK, ``known`` being told to it before."""

    def __init__(self, known: Known | None = None) -> None:
        self._known = known
        self.messages: int | None = None
        self.numbers: dict[str, int] = {}
        self.without_modseq = False
        self.object_id: str | None = None
        self._begin_changes()

    def _begin_changes(self) -> None:
        self._flags: dict[int, SeenFlags] = {}
        self._vanished: list[tuple[int, int]] = []

    @property
    def changes(self) -> Changes | None:
        """What changed since what was known; None where that was not asked or is too much."""
        if self._known is None or len(self._flags) + len(self._vanished) > MOST_CHANGES:
            return None
        within = Within(self._known.uids)
        flags = tuple(seen for uid, seen in self._flags.items() if uid in within)
        return Changes(flags, self._vanished)

    def told(self, response: Data | Status) -> None:
        """Take in an untagged response, or the tagged one, which may carry a code too."""
        if isinstance(response, Data):
            match numbered(response):
                case (b"EXISTS", count):
                    self.messages = count
                case None if self._known is not None:
                    self._changed(response)
            return
        if response.response_code == "CLOSED":  # what came before was about another folder
            self._begin_changes()
        elif response.response_code == "NOMODSEQ":
            self.without_modseq = True
        elif response.response_code == "MAILBOXID" and (told := OBJECT_ID.match(response.argument)):
            self.object_id = told[1].decode()
        elif response.argument.isdigit() and len(response.argument) <= 20:
            self.numbers[response.response_code] = int(response.argument)

    def _changed(self, response: Data) -> None:
        if len(self._flags) + len(self._vanished) > MOST_CHANGES:
            return
        items = fetch_items(response)
        seen = seen_flags(items) if items is not None else None
        if seen is not None:
            self._flags[seen.uid] = seen
        else:
            self._vanished += vanished(response) or ()


def select(
    channel: Channel, wire_name: bytes, readonly: bool, condstore: bool, known: Known | None = None
) -> Selected:
    """EXAMINE or SELECT, with CONDSTORE where wanted (RFC 7162 §3.1.8), or with QRESYNC where something is
    ``known``. What is offered and refused is left out."""
    command = (b"EXAMINE " if readonly else b"SELECT ") + folder(wire_name)
    described = _Description(known)
    words = _resync(known) if known is not None else b" (CONDSTORE)" if condstore else b""
    reply = channel.finish(channel.send(command + words), described.told)
    if known is not None and reply.kind != "OK" and not busy(reply.response_code, clean(reply.text)):
        return select(channel, wire_name, readonly, condstore)
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
    return Selected(
        uidvalidity=uidvalidity,
        uidnext=described.numbers.get("UIDNEXT") or None,
        messages=messages,
        highestmodseq=highest or None,
        changes=described.changes if highest else None,
        object_id=described.object_id,
    )


def _resync(known: Known) -> bytes:
    """What is known, as SELECT takes it; of many ranges of UIDs only the first and the last number."""
    sets = list(pieces(known.uids))
    uids = sets[0] if len(sets) == 1 else b"%d:%d" % (known.uids[0][0], known.uids[-1][1])
    return b" (QRESYNC (%d %d %s))" % (known.uidvalidity, known.modseq, uids)


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
