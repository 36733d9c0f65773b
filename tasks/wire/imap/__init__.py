"""IMAP: IMAPClient's commands and our own scanner behind one typed session."""

from tasks.wire.imap.changes import Copied, Moved
from tasks.wire.imap.errors import (
    CommandRefused,
    Disconnected,
    FolderAbsent,
    FolderUnavailable,
    ImapError,
    LoginRefused,
    NoRoom,
    ProtocolError,
    ServerBusy,
)
from tasks.wire.imap.names import shown_name, wire_name
from tasks.wire.imap.session import ImapSession
from tasks.wire.imap.uidsets import ranges
from tasks.wire.imap.values import (
    Changes,
    Fetched,
    FolderStatus,
    Known,
    ListedFolder,
    Outline,
    SeenFlags,
    Selected,
    UidSet,
)

__all__ = [
    "Changes",
    "CommandRefused",
    "Copied",
    "Disconnected",
    "Fetched",
    "FolderAbsent",
    "FolderStatus",
    "FolderUnavailable",
    "ImapError",
    "ImapSession",
    "Known",
    "ListedFolder",
    "LoginRefused",
    "Moved",
    "NoRoom",
    "Outline",
    "ProtocolError",
    "SeenFlags",
    "Selected",
    "ServerBusy",
    "UidSet",
    "ranges",
    "shown_name",
    "wire_name",
]
