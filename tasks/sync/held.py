"""IMAP sessions that rest between polls, and the cheap look at many of them at once.

    claim of many ──> STATUS written to all ──> answers read from all ──> one query of their cursors
                                    │
              nothing changed ──────┴──> one UPDATE gives them all back; the others are synced in full

A session rests with no folder open. Whoever takes one compares the server with the cursor in the
database, under the lease of this claim.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tasks import schedule
from tasks.mailboxes import Route
from tasks.runtime import Runtime
from tasks.wire.imap import ImapSession, ListedFolder

LONGEST_REST: Final = 900.0
"""Seconds that a session rests unused before it is closed; servers end theirs after 30 minutes."""
REVIEW_EVERY: Final = 5.0
"""Seconds between two looks for sessions whose mailbox is not followed any more."""


@dataclass(slots=True)
class Held:
    """A resting session.

    ``version`` is that of the login, the provider and the secret when it was opened, ``settings`` that of
    the mailbox when the ``route`` was read (see `tasks.sync.folders.Opening`); ``listed`` is what LIST
    showed at ``listed_at`` (monotonic seconds), and is stored.
    """

    imap: ImapSession
    version: str
    settings: str
    route: Route
    listed: Sequence[ListedFolder] = ()
    listed_at: float = -math.inf
    used_at: float = 0.0


class HeldSessions:
    """The resting sessions of one process, at most ``MAILWRIGHT_HELD_SESSIONS``; for any thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._most = runtime.settings.held_sessions
        self._resting: OrderedDict[int, Held] = OrderedDict()
        self._lock = threading.Lock()
        self._reviewed_at = -math.inf

    def mailboxes(self) -> list[int]:
        """Whose sessions rest here."""
        with self._lock:
            return list(self._resting)

    def take(self, mailbox_id: int) -> Held | None:
        """The mailbox's session; nobody else gets it until it rests again."""
        with self._lock:
            return self._resting.pop(mailbox_id, None)

    def rest(self, mailboxes: Mapping[int, Held]) -> None:
        """Let sessions rest; those that nobody used for long, and those above the bound, are closed."""
        now = time.monotonic()
        with self._lock:
            for mailbox_id, held in mailboxes.items():
                held.used_at = now
                self._resting[mailbox_id] = held
            leaving = []
            while self._resting:
                mailbox_id, oldest = next(iter(self._resting.items()))
                if len(self._resting) <= self._most and now - oldest.used_at < LONGEST_REST:
                    break
                leaving.append(self._resting.pop(mailbox_id))
        for held in leaving:
            held.imap.leave()

    def review(self, runtime: Runtime) -> None:
        """Close those of mailboxes that are removed, paused or switched off; looked at now and then."""
        now = time.monotonic()
        with self._lock:
            if now < self._reviewed_at + REVIEW_EVERY or not self._resting:
                return
            self._reviewed_at = now
            held = list(self._resting)
        with runtime.db.begin() as session:
            wanted = schedule.followed(session, held)
        for mailbox_id in set(held) - wanted:
            if (over := self.take(mailbox_id)) is not None:
                over.imap.leave()

    def close(self) -> None:
        """Close all."""
        with self._lock:
            leaving, self._resting = list(self._resting.values()), OrderedDict()
        for held in leaving:
            held.imap.leave()
