"""Values of the sync: the cursor, what a server shows, what to do about it."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from tasks.sync.ranges import Ranges


class Tracking(Enum):
    """How a server tells what changed, from the worst to the best (RFC 7162)."""

    NONE = "none"
    CONDSTORE = "condstore"
    QRESYNC = "qresync"

    @classmethod
    def best(cls, *, condstore: bool, qresync: bool) -> "Tracking":
        """The best of what is offered."""
        if qresync:
            return cls.QRESYNC
        return cls.CONDSTORE if condstore else cls.NONE


@dataclass(frozen=True, slots=True)
class Cursor:
    """What is stored of one folder epoch.

    ``uids`` is every UID that was passed over (stored, stubbed, or seen not to exist); ``modseq``,
    ``uidnext`` and ``messages`` are what the server said at the last complete pass. ``modseq_before`` is
    the MODSEQ of the pass before that where passes overlap (Gmail); ``doubted_at``: when a MODSEQ could
    not be.
    """

    uidvalidity: int
    uids: Ranges
    uidnext: int | None
    messages: int
    modseq: int | None
    flags_checked_at: datetime | None
    compared_at: datetime | None
    modseq_before: int | None = None
    doubted_at: datetime | None = None

    @property
    def since(self) -> int | None:
        """The MODSEQ to ask from."""
        return self.modseq if self.modseq_before is None else self.modseq_before


@dataclass(frozen=True, slots=True)
class Seen:
    """A folder as the server describes it at SELECT or STATUS."""

    uidvalidity: int
    uidnext: int | None  # some servers leave it out
    messages: int
    highestmodseq: int | None  # None: NOMODSEQ, or not offered


@dataclass(frozen=True, slots=True)
class Nothing:
    """The folder is as the cursor has it."""


@dataclass(frozen=True, slots=True)
class StartEpoch:
    """The folder has no cursor, or the server renumbered it (RFC 9051 §2.3.1.1)."""

    uidvalidity: int


@dataclass(frozen=True, slots=True)
class ChangedSince:
    """Ask for flags with a higher MODSEQ (RFC 7162 §3.1.4)."""

    modseq: int


@dataclass(frozen=True, slots=True)
class Resync:
    """Ask for flags with a higher MODSEQ and for UIDs gone since (RFC 7162 §3.2.5)."""

    modseq: int


@dataclass(frozen=True, slots=True)
class NewestFlags:
    """Compare the flags of the newest messages."""

    count: int


@dataclass(frozen=True, slots=True)
class Look:
    """Fetch what is new (``holes``), find flag changes as ``flags`` says, and with ``compare`` hold
    every stored UID and flag against the server's, which finds expunges too. ``doubt``: the server's
    MODSEQs are not believed for a while."""

    holes: bool
    flags: Resync | ChangedSince | NewestFlags | None
    compare: bool
    doubt: bool = False


SyncPlan = Nothing | StartEpoch | Look
