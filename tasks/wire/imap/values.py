"""What an IMAP session gives back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tasks.wire.bulk import Raw

UidSet = Sequence[tuple[int, int]]
"""Inclusive ranges of UIDs, each ``(first, last)`` with 1 ≤ first ≤ last."""


@dataclass(frozen=True, slots=True)
class ListedFolder:
    """One folder of LIST (RFC 9051 §7.3.1).

    ``wire_name`` is what the server must be told, ``name`` is for people. ``special_use`` is as in
    RFC 6154 (``\\Sent``), told by the server or, where it tells none of that use, guessed by name.
    ``personal``: not in a namespace of other users or of all (RFC 2342 §5).
    """

    wire_name: bytes
    name: str
    delimiter: str | None
    attributes: tuple[str, ...]
    special_use: str | None
    selectable: bool
    personal: bool = True


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a folder that is opened (RFC 7162 §3.2.5): its UIDVALIDITY, the MODSEQ up to which
    its changes are known, and its UIDs."""

    uidvalidity: int
    modseq: int
    uids: UidSet


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed in a folder since a MODSEQ: ``flags`` as they are now, and UIDs that are gone, among
    which may be some that never were."""

    flags: tuple["SeenFlags", ...]
    vanished: UidSet


@dataclass(frozen=True, slots=True)
class Selected:
    """A folder as SELECT or EXAMINE describes it."""

    uidvalidity: int
    uidnext: int | None
    """Some servers leave it out."""
    messages: int
    highestmodseq: int | None
    """None: NOMODSEQ, not told, or CONDSTORE is not offered (RFC 7162)."""
    changes: Changes | None = None
    """Since what was known; None where that was not asked, refused, or more than is held at once."""
    object_id: str | None = None
    """MAILBOXID (RFC 8474 §4), which outlasts a new name; None where the server tells none."""


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """A folder as STATUS describes it; None where the server did not say."""

    messages: int
    uidnext: int | None
    uidvalidity: int | None
    highestmodseq: int | None


@dataclass(frozen=True, slots=True)
class SeenFlags:
    """The flags of one message, sorted, without ``\\Recent``; None where they could not be read."""

    uid: int
    flags: tuple[str, ...] | None
    modseq: int | None


@dataclass(frozen=True, slots=True)
class Outline:
    """A message without its body; ``size`` in bytes is the server's word and may lie, None is none."""

    uid: int
    size: int | None
    internal_at: datetime | None
    """Aware, UTC; None where the server gave none or nonsense."""
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Identified:
    """A message by what its content is known by in every folder: EMAILID (RFC 8474 §5.1) or X-GM-MSGID."""

    uid: int
    email_id: str
    size: int | None
    flags: tuple[str, ...]
    modseq: int | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A message with its bytes.

    ``body`` is None only when it had more than the asked-for maximum of bytes (``oversize``), or when
    there was no room for it here (``lost`` says why).
    ``size`` is RFC822.SIZE as told, which may differ from ``len(body)``.
    """

    uid: int
    flags: tuple[str, ...]
    modseq: int | None
    internal_at: datetime | None
    size: int | None
    body: Raw | None
    oversize: bool
    email_id: str | None = None
    thread_id: str | None = None
    """What the server knows its content and its thread by, where it tells (`Identified`)."""
    lost: str | None = None
