"""An IMAP session: the one door to a mail server's folders."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from tasks.wire import net
from tasks.wire.imap import changes, fetching, folders, items, terms
from tasks.wire.imap.channel import Channel, Steps, ignore, no_steps
from tasks.wire.imap.client import Client
from tasks.wire.imap.errors import CommandRefused, FolderUnavailable, ImapError
from tasks.wire.imap.login import log_in, secure
from tasks.wire.imap.scanner import Data
from tasks.wire.imap.uidsets import Within, batches, pieces
from tasks.wire.imap.values import (
    Fetched,
    FolderStatus,
    Identified,
    Known,
    ListedFolder,
    Outline,
    SeenFlags,
    Selected,
    UidSet,
)
from tasks.wire.sasl import Secret

FETCH_BATCH: Final = 200
"""UIDs asked for in one FETCH of bodies."""
GOODBYE: Final = 2.0
"""Seconds that LOGOUT may wait."""
APPENDUID: Final = re.compile(rb"\[APPENDUID (\d+) (\d+)\]", re.IGNORECASE)


class ImapSession:
    """A logged-in connection; made by `open`.

    Every operation may wait ``timeout`` seconds, streaming ones for each 64 KiB or message. Raises
    `ImapError`s and `net.NetError`s. After `CommandRefused` and `FolderUnavailable` the session goes
    on, after any other error, or an iterator not read to its end, it is not ``alive`` any more. Used by
    one thread, one operation at a time.
    """

    def __init__(self, channel: Channel, client: Client, agreed: terms.Terms, *, use_condstore: bool) -> None:
        self._channel = channel
        self._client = client
        self._terms = agreed
        self.qresync = "QRESYNC" in agreed.enabled
        """Whether a folder that is opened may be asked for its changes; set it to False after a
        contradiction."""
        self.condstore = use_condstore and not self.capabilities.isdisjoint({"CONDSTORE", "QRESYNC"})
        """Whether MODSEQs are asked for: offered after login, and allowed.

        After a server's contradiction (BAD to MODSEQ: IONOS) set it to False and select again.
        """
        self.identifies = not self.capabilities.isdisjoint({"X-GM-EXT-1", "OBJECTID"})
        """Whether the server tells what a message's content is known by; set it to False after a
        contradiction."""
        self._modseqs = False
        self._selected = b""
        self._listing: folders.Listing | None = None
        self._statuses: folders.Statuses | None = None

    @classmethod
    def open(
        cls,
        endpoint: net.Endpoint,
        login: str,
        secret: Secret,
        *,
        timeout: float,
        connect_timeout: float,
        steps: Steps | None = None,
        use_condstore: bool = True,
        use_qresync: bool = False,
    ) -> "ImapSession":
        """Connect, secure and log in. ``timeout`` and ``connect_timeout`` in seconds.

        ``steps`` hears ``resolve, connect, tls, greeting, starttls, login`` (and ``select`` later),
        each with its seconds, as they are done. Raises what `net.dial` raises, `net.TlsFailed` where
        STARTTLS is not offered, `LoginRefused`, `ServerBusy`, `Disconnected`, `ProtocolError`.
        """
        channel = Channel(endpoint, timeout, connect_timeout, steps or no_steps)
        with channel.operation(ending=True):
            try:
                with channel.step("greeting"):
                    client = Client(channel)
                if endpoint.security is net.Security.STARTTLS:
                    channel.at(net.Step.STARTTLS)
                    with channel.step("starttls"):
                        secure(channel, client)
            except ImapError as error:
                error.before_login = True
                raise
            channel.at(net.Step.LOGIN)
            with channel.step("login"):
                offered = client.capabilities
                if not client.preauthenticated:
                    offered = log_in(channel, offered, login, secret)
            client.entered("AUTH", offered)
            channel.at(net.Step.DIALOGUE)
            agreed = terms.agree(channel, offered, qresync=use_condstore and use_qresync)
        return cls(channel, client, agreed, use_condstore=use_condstore)

    @property
    def capabilities(self) -> frozenset[str]:
        """What the server offers, upper case, as told after the login."""
        return self._client.capabilities

    def longest_wait(self) -> float:
        """Seconds of the longest wait for an answer since this was asked last."""
        return self._channel.longest_wait()

    @property
    def alive(self) -> bool:
        """Whether another operation can be tried."""
        return self._channel.alive

    def folders(self) -> list[ListedFolder]:
        """Every folder of LIST, with special uses told or guessed; some may not be selectable."""
        with self._channel.operation():
            return folders.folders(self._channel, self.capabilities, self._terms)

    def select(self, wire_name: bytes, *, readonly: bool = True, known: Known | None = None) -> Selected:
        """EXAMINE, or SELECT; raises `FolderUnavailable` and then none is selected. Where QRESYNC is agreed
        on, the answer tells what changed since what is ``known``, of a folder that was not renumbered."""
        self._modseqs, self._selected = False, b""
        known = known if self.qresync and known is not None and known.uids else None
        with self._channel.operation(streaming=known is not None):
            self._client.entered("AUTH")
            with self._channel.step("select"):
                selected = folders.select(self._channel, wire_name, readonly, self.condstore, known)
            self._client.entered("SELECTED")
        self._selected = wire_name
        self._modseqs = selected.highestmodseq is not None
        return selected

    def status(self, wire_names: Sequence[bytes]) -> dict[bytes, FolderStatus]:
        """STATUS of each folder, many on the wire at once; one that the server refuses is left out."""
        with self._channel.operation():
            return folders.status(self._channel, wire_names, self.condstore)

    def ask(self, wire_names: Sequence[bytes], *, listing: bool = False) -> None:
        """Send STATUS of each folder, and LIST where wished, without waiting for the answers. The next
        operation must be `told`."""
        with self._channel.operation():
            self._listing = (
                folders.Listing(self._channel, self.capabilities, self._terms) if listing else None
            )
            self._statuses = folders.Statuses(self._channel, wire_names, self.condstore)

    def told(self, seconds: float) -> tuple[dict[bytes, FolderStatus], list[ListedFolder] | None]:
        """The answers to `ask`, waiting at most ``seconds`` for them: as `status` gives them, and the
        folders where they were asked for."""
        assert self._statuses is not None
        with self._channel.operation(ending=True):
            self._channel.sock.budget = net.Budget(seconds)
            listed = self._listing.read() if self._listing is not None else None
            found = self._statuses.read()
        self._listing = self._statuses = None
        return found, listed

    def flags(
        self,
        uids: UidSet,
        *,
        changed_since: int | None = None,
        vanished: Callable[[UidSet], None] | None = None,
    ) -> Iterator[SeenFlags]:
        """Flags in the selected folder, as they come; a UID told twice holds as told last.

        ``changed_since`` is a MODSEQ (RFC 7162 §3.1.4.1) and raises `CommandRefused` where the folder
        has none. With it, and where QRESYNC is agreed on, ``vanished`` is told UIDs that are gone since.
        """
        if changed_since is not None and not self._modseqs:
            raise CommandRefused("This folder has no MODSEQs to compare.")
        words = b"(UID FLAGS MODSEQ)" if self._modseqs else b"(UID FLAGS)"
        if changed_since is not None:
            words += b" (CHANGEDSINCE %d%s)" % (changed_since, b" VANISHED" if vanished else b"")

        def aside(data: Data) -> None:
            gone = items.vanished(data) if vanished else None
            if vanished and gone:
                vanished(gone)

        within = Within(uids)
        commands = (_fetch(piece, words) for piece in pieces(uids))
        with self._channel.operation(streaming=True):
            for told in fetching.stream(self._channel, commands, aside):
                seen = fetching.seen_flags(told)
                if seen is not None and seen.uid in within:
                    yield seen

    def outlines(self, uids: UidSet) -> Iterator[Outline]:
        """Sizes, dates and flags in the selected folder, as they come."""
        words = b"(UID FLAGS INTERNALDATE RFC822.SIZE)"
        within = Within(uids)
        with self._channel.operation(streaming=True):
            for told in fetching.stream(self._channel, (_fetch(piece, words) for piece in pieces(uids))):
                outline = fetching.outline(told)
                if outline is not None and outline.uid in within:
                    yield outline

    def fetch(self, uids: Sequence[int], *, max_bytes: int, headers_only: bool = False) -> Iterator[Fetched]:
        """Messages of the selected folder, in about the order of ``uids``, each at most once.

        One message is in memory at a time; the next command is on the wire meanwhile. A body of more
        than ``max_bytes`` is passed over as it comes (``oversize``), whatever RFC822.SIZE said. A UID
        of which the server gives no body, in silence, with NIL or with NO, is not yielded.
        """
        what = b"BODY.PEEK[HEADER]" if headers_only else b"BODY.PEEK[]"
        modseq = b"MODSEQ " if self._modseqs else b""
        words = b"(UID FLAGS INTERNALDATE RFC822.SIZE %s%s%s)" % (modseq, self._identity(), what)
        wanted = set(uids)
        commands = (_fetch(piece, words) for piece in batches(uids, FETCH_BATCH))
        with self._channel.operation(max_literal=max_bytes + 4096, streaming=True):
            for told in fetching.stream(self._channel, commands):
                message = fetching.fetched(told, max_bytes)
                del told
                if message is not None and message.uid in wanted:
                    wanted.discard(message.uid)
                    self._channel.renew()
                    yield message
                del message

    def identities(self, uids: Sequence[int]) -> Iterator[Identified]:
        """What the content of these messages of the selected folder is known by, where the server
        ``identifies``, as it comes."""
        modseq = b"MODSEQ " if self._modseqs else b""
        words = b"(UID FLAGS %s%sRFC822.SIZE)" % (modseq, self._identity())
        wanted = set(uids)
        commands = (_fetch(piece, words) for piece in batches(uids, FETCH_BATCH))
        with self._channel.operation(streaming=True):
            for told in fetching.stream(self._channel, commands):
                found = fetching.identified(told)
                if found is not None and found.uid in wanted:
                    yield found

    def _identity(self) -> bytes:
        if not self.identifies:
            return b""
        gmail = "X-GM-EXT-1" in self.capabilities
        return b"X-GM-MSGID X-GM-THRID " if gmail else b"EMAILID THREADID "

    def append(
        self, wire_name: bytes, content: bytes, flags: Sequence[str], at: datetime | None
    ) -> tuple[int, int] | None:
        """Put a message (CRLF lines) into a folder; (UIDVALIDITY, UID) where the server tells (RFC 4315).

        Raises `FolderUnavailable` where there is no such folder. After `Disconnected` or a time-out it
        may be there or not: search before appending again.
        """
        try:
            with self._channel.operation():
                told = APPENDUID.search(self._client.append(wire_name, content, flags, at))
        except CommandRefused as error:
            if error.response_code not in ("TRYCREATE", "NONEXISTENT"):
                raise
            raise FolderUnavailable(
                str(error), words=error.words, response_code=error.response_code
            ) from error
        return (int(told[1]), int(told[2])) if told else None

    def search_message_id(self, message_id: str) -> list[int]:
        """UIDs in the selected folder whose Message-ID header contains ``message_id``, ascending."""
        with self._channel.operation():
            return self._client.search_header("Message-ID", " ".join(message_id.split()))

    def store(self, uids: Sequence[int], flags: Sequence[str], *, add: bool) -> None:
        """Set or take away flags in the selected folder, which is open for writing (`select`)."""
        with self._channel.operation():
            changes.store(self._channel, uids, flags, add=add)

    def copy(self, uids: Sequence[int], wire_name: bytes) -> changes.Copied | None:
        """Copy from the selected folder; where to, as far as the server tells."""
        with self._channel.operation():
            return changes.copy(self._channel, uids, wire_name)

    def move(self, uids: Sequence[int], wire_name: bytes) -> changes.Moved:
        """Move out of the selected folder; by MOVE, else COPY and `expunge`, of which the copy may be
        made when the rest is refused or lost."""
        with self._channel.operation():
            return changes.move(self._channel, self.capabilities, uids, wire_name)

    def expunge(self, uids: Sequence[int]) -> bool:
        """Remove these messages and no others; False where the server can only mark them ``\\Deleted``."""
        with self._channel.operation():
            return changes.expunge(self._channel, self.capabilities, uids)

    def create(self, wire_name: bytes) -> None:
        """CREATE; a folder that exists already is fine."""
        with self._channel.operation():
            folders.create(self._channel, wire_name)

    def noop(self) -> None:
        """NOOP: raises `Disconnected` where the session has died unnoticed."""
        with self._channel.operation():
            self._channel.run(b"NOOP", "NOOP", ignore)

    def unselect(self) -> None:
        """Leave the selected folder, if there is one, expunging nothing (RFC 3691)."""
        if not self._selected:
            return
        with self._channel.operation():
            folders.unselect(self._channel, self._selected, "UNSELECT" in self.capabilities)
            self._client.entered("AUTH")
        self._modseqs, self._selected = False, b""

    def leave(self) -> None:
        """Say LOGOUT and hang up without waiting for the answer. Never raises."""
        if self.alive:
            with suppress(ImapError, net.NetError, RuntimeError), self._channel.operation():
                self._channel.sock.budget = net.Budget(0.1)
                self._channel.send(b"LOGOUT")
        self._channel.cut()

    def close(self) -> None:
        """Log out, briefly, and hang up. Never raises; safe to call twice."""
        if self.alive:
            with suppress(ImapError, net.NetError, RuntimeError), self._channel.operation():
                self._channel.sock.budget = net.Budget(GOODBYE)
                self._client.logout()
        self._channel.cut()

    def __enter__(self) -> "ImapSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _fetch(uids: bytes, words: bytes) -> bytes:
    return b"UID FETCH %s %s" % (uids, words)
