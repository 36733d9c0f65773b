"""Whoever follows the plans has what the server has, whatever happened and however the server lies.

A model of a server (a folder with UIDs, flags, MODSEQs and its UIDVALIDITY) is changed by lot; looks follow
`plan_sync` as `tasks.sync.folder` does, with the same pure parts, and some are broken off half-way.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tasks.sync.compare import difference
from tasks.sync.plan import NEWEST_FLAGS, RECONCILE_EVERY, has_holes, last_uid, plan_sync, stood_still
from tasks.sync.ranges import LAST_UID, Ranges
from tasks.sync.values import (
    ChangedSince,
    Cursor,
    Look,
    NewestFlags,
    Nothing,
    Resync,
    Seen,
    StartEpoch,
    Tracking,
)
from tasks.wire.imap import SeenFlags

FLAGS = ("\\Answered", "\\Flagged", "\\Seen", "$Label1")


class Killed(Exception):
    """The worker that looked is no more."""


@dataclass
class Mail:
    """A message on the server."""

    body: int
    flags: tuple[str, ...]
    modseq: int


@dataclass
class Server:
    """A folder as it is, and how it is told."""

    tracking: Tracking
    tells_uidnext: bool
    stale_modseq: bool
    """HIGHESTMODSEQ lags behind (WorkMail)."""
    without_modseq: bool
    """FETCH leaves MODSEQ out (SmarterMail)."""
    runs_ahead: bool
    """HIGHESTMODSEQ tells of changes that CHANGEDSINCE shows at the next look only (Gmail)."""
    uidvalidity: int = 1
    uidnext: int = 1
    modseq: int = 1
    told_modseq: int = 1
    mails: dict[int, Mail] = field(default_factory=dict)
    gone: dict[int, int] = field(default_factory=dict)
    untold: set[int] = field(default_factory=set)
    """UIDs that VANISHED leaves out though they are gone."""
    undead: set[int] = field(default_factory=set)
    """UIDs that VANISHED tells though they are there."""
    late: set[int] = field(default_factory=set)

    def touch(self) -> int:
        """The MODSEQ of another change."""
        self.modseq += 1
        if not self.stale_modseq:
            self.told_modseq = self.modseq
        return self.modseq

    def seen(self) -> Seen:
        """What SELECT and STATUS show."""
        return Seen(
            self.uidvalidity,
            self.uidnext if self.tells_uidnext else None,
            len(self.mails),
            None if self.tracking is Tracking.NONE else self.told_modseq,
        )

    def flags(self, low: int, high: int, since: int | None = None) -> list[SeenFlags]:
        """FETCH of flags; a range that reaches past the end brings the last message too."""
        uids = [uid for uid in sorted(self.mails) if low <= uid <= high]
        if high == LAST_UID and self.mails and not uids:
            uids = [max(self.mails)]
        return [
            SeenFlags(uid, self.mails[uid].flags, None if self.without_modseq else self.mails[uid].modseq)
            for uid in uids
            if since is None or (self.mails[uid].modseq > since and uid not in self.late)
        ]

    def vanished(self, since: int) -> list[int]:
        """What VANISHED (EARLIER) tells, once; a lie is told at one look."""
        told = {uid for uid, modseq in self.gone.items() if modseq > since} - self.untold | self.undead
        self.undead = set()
        return sorted(told)


class FollowingPlans(RuleBasedStateMachine):
    """Changes on the server, looks at it, and after a whole look: equality."""

    @initialize(
        tracking=st.sampled_from(Tracking),
        tells_uidnext=st.booleans(),
        lie=st.sampled_from(("", "stale_modseq", "without_modseq", "runs_ahead")),
    )
    def start(self, tracking: Tracking, tells_uidnext: bool, lie: str) -> None:
        lies = {name: name == lie for name in ("stale_modseq", "without_modseq", "runs_ahead")}
        self.server = Server(tracking, tells_uidnext, **lies)
        self.stored: dict[int, tuple[int, tuple[str, ...]]] = {}
        self.cursor: Cursor | None = None
        self.now = datetime(2026, 5, 1, tzinfo=UTC)
        self.bodies = 0
        self.went_back = False
        self.qresync = True
        self.gone = 0
        self.level = False

    @rule(flags=st.sets(st.sampled_from(FLAGS)), count=st.integers(1, 4))
    def arrive(self, flags: set[str], count: int) -> None:
        for _ in range(count):
            self.bodies += 1
            mail = Mail(self.bodies, tuple(sorted(flags)), self.server.touch())
            self.server.mails[self.server.uidnext] = mail
            self.server.uidnext += 1
        self.level = False

    @rule(skipped=st.integers(1, 3))
    def numbers_are_skipped(self, skipped: int) -> None:
        self.server.uidnext += skipped
        self.level = False

    @precondition(lambda self: self.server.mails)
    @rule(data=st.data())
    def mark(self, data: st.DataObject) -> None:
        uid = data.draw(st.sampled_from(sorted(self.server.mails)))
        flags = data.draw(st.sets(st.sampled_from(FLAGS)))
        self.server.mails[uid].flags = tuple(sorted(flags))
        self.server.mails[uid].modseq = self.server.touch()
        if self.server.runs_ahead:
            self.server.late.add(uid)
        self.level = False

    @precondition(lambda self: self.server.mails)
    @rule(data=st.data(), told=st.booleans())
    def expunge(self, data: st.DataObject, told: bool) -> None:
        uid = data.draw(st.sampled_from(sorted(self.server.mails)))
        del self.server.mails[uid]
        self.server.gone[uid] = self.server.touch()
        if not told and not self.server.undead:  # two lies that make up for one another are found in a day
            self.server.untold.add(uid)
        self.level = False

    @precondition(lambda self: self.server.mails and not self.server.untold)
    @rule(data=st.data())
    def tell_one_to_be_gone(self, data: st.DataObject) -> None:
        self.server.undead.add(data.draw(st.sampled_from(sorted(self.server.mails))))
        self.server.touch()
        self.level = False

    @rule(first=st.integers(1, 5))
    def renumber(self, first: int) -> None:
        held = list(self.server.mails.values())
        self.server.uidvalidity += 1
        self.server.mails = dict(enumerate(held, start=first))
        self.server.uidnext = first + len(held)
        self.server.gone, self.server.untold, self.server.undead = {}, set(), set()
        self.server.late = set()
        for mail in held:
            mail.modseq = self.server.touch()
        self.level = False

    @precondition(lambda self: self.server.tracking is not Tracking.NONE)
    @rule()
    def modseqs_go_back(self) -> None:
        """A server restored from a backup, or one that counts anew."""
        self.server.modseq = self.server.told_modseq = 1
        self.went_back = True
        for mail in self.server.mails.values():
            mail.modseq = 1
        self.server.gone = dict.fromkeys(self.server.gone, 1)
        self.level = False

    @rule()
    def log_in_anew(self) -> None:
        self.qresync = True

    @rule(minutes=st.integers(0, 90))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(commits=st.integers(0, 4))
    def look_and_die(self, commits: int) -> None:
        """A worker that is killed after so many commits; they hold, the cursor's numbers do not move."""
        self.commits = commits
        self.level = False
        with suppress(Killed):
            self.look()

    @rule()
    def look_to_the_end(self) -> None:
        """What no trusted MODSEQ tells is found within the day."""
        known = self.cursor.modseq if self.cursor is not None else None
        caught_up = self.went_back and known is not None and self.server.told_modseq >= known
        tracked = self.server.tracking is not Tracking.NONE
        if tracked and (self.server.stale_modseq or caught_up):
            self.now += RECONCILE_EVERY
        self.commits = 10**9
        for _ in range(2 if self.server.runs_ahead else 1):
            self.look()
        self.went_back = False
        self.level = True

    @invariant()
    def nothing_is_missed(self) -> None:
        if not getattr(self, "level", False):
            return
        there = {uid: (mail.body, mail.flags) for uid, mail in self.server.mails.items()}
        assert self.stored == there
        assert self.cursor is not None
        if self.server.runs_ahead and self.cursor.since != self.cursor.modseq:
            return  # the last change is asked for once more
        tracked = self.server.tracking is not Tracking.NONE and self.cursor.doubted_at is None
        if tracked and self.server.tells_uidnext:
            plan = plan_sync(self.cursor, self.server.seen(), self.tracking, self.now)
            assert plan == Nothing(), "a second look at what did not change asks for something"

    @property
    def tracking(self) -> Tracking:
        """What the session has left of it."""
        tracking = self.server.tracking
        return Tracking.CONDSTORE if tracking is Tracking.QRESYNC and not self.qresync else tracking

    def commit(self, **changes: Any) -> None:
        """One transaction more, which may set fields of the cursor."""
        self.commits -= 1
        if self.commits < 0:
            raise Killed
        if changes:
            assert self.cursor is not None
            self.cursor = replace(self.cursor, **changes)

    def look(self) -> None:
        """Follow the plan as far as the commits reach."""
        try:
            self._follow()
        finally:
            self.server.late = set()

    def _follow(self) -> None:
        seen = self.server.seen()
        plan = plan_sync(self.cursor, seen, self.tracking, self.now)
        if isinstance(plan, StartEpoch):
            self.commit()
            self.stored = {}
            self.cursor = Cursor(seen.uidvalidity, Ranges(), None, 0, seen.highestmodseq, None, self.now)
            plan = Look(holes=True, flags=None, compare=False)
        if isinstance(plan, Nothing):
            return
        assert self.cursor is not None
        cursor, doubt = self.cursor, plan.doubt
        self.gone = 0
        last = self._last(seen)
        if plan.holes:
            assert has_holes(cursor, seen) or not cursor.uids.holes(last)
            self._fill_holes(last)
            came = any(uid >= (cursor.uidnext or 1) for uid in self.stored)
            doubt = doubt or (stood_still(cursor, seen) and came)
        match plan.flags:
            case Resync(modseq) | ChangedSince(modseq) if self.cursor.uids:
                top = self.cursor.uids.top
                doubt = self._apply(self.server.flags(1, top, since=modseq)) or doubt
                if isinstance(plan.flags, Resync):
                    self._remove([uid for uid in self.server.vanished(modseq) if uid in self.stored])
            case NewestFlags(count):
                assert count == NEWEST_FLAGS
                self._compare(max(self.stored, default=0))
            case _:
                pass
        compared = plan.compare or doubt
        if not compared and not self._agrees(cursor, seen):
            compared = True
            self.qresync = self.qresync and not isinstance(plan.flags, Resync)
        if compared and self._compare(last):
            self._fill_holes(last)
        self.commit(
            uidnext=seen.uidnext,
            messages=seen.messages,
            modseq=seen.highestmodseq,
            modseq_before=cursor.modseq if self.server.runs_ahead else None,
            flags_checked_at=self.now,
            doubted_at=self.now if doubt else cursor.doubted_at,
        )
        if compared:
            self.commit(compared_at=self.now)

    def _agrees(self, cursor: Cursor, seen: Seen) -> bool:
        """As `tasks.sync.folder` reckons it, from the last count."""
        first = cursor.uidnext
        if first is not None and not cursor.uids.holes(first - 1):
            came = sum(uid >= first for uid in self.stored)
            if cursor.messages - self.gone + came == seen.messages:
                return True
        return len(self.stored) == seen.messages

    def _last(self, seen: Seen) -> int:
        assert self.cursor is not None
        last, top = last_uid(seen), self.cursor.uids.top
        if last == LAST_UID:
            last = max((item.uid for item in self.server.flags(top + 1, LAST_UID)), default=0)
        return max(last, top)

    def _fill_holes(self, last: int) -> None:
        """The highest hole first, two UIDs a commit."""
        assert self.cursor is not None
        holes = self.cursor.uids.holes(last)
        while (window := holes.highest(2)) is not None:
            low, high = window
            self.commit(uids=self.cursor.uids.add(low, high))
            for item in self.server.flags(low, high):
                self.stored[item.uid] = (self.server.mails[item.uid].body, item.flags or ())
            holes = holes.remove(low, high)

    def _compare(self, last: int) -> bool:
        """Everything; True where what was passed over turns out to be there."""
        assert self.cursor is not None
        high = max(last, max(self.stored, default=0))
        shown = self.server.flags(1, high)
        found = difference({uid: flags for uid, (_, flags) in self.stored.items()}, shown)
        self._take(found.changed)
        self._remove(found.gone)
        lost = [item.uid for item in shown if item.uid not in self.stored and item.uid in self.cursor.uids]
        if lost:
            uids = self.cursor.uids
            for uid in lost:
                uids = uids.remove(uid, uid)
            self.commit(uids=uids)
        return bool(lost)

    def _apply(self, shown: list[SeenFlags]) -> bool:
        """Take over flags; True where they came without MODSEQ."""
        self._take([item for item in shown if item.uid in self.stored and item.flags is not None])
        return any(item.modseq is None for item in shown)

    def _take(self, changed: Sequence[SeenFlags]) -> None:
        if changed:
            self.commit()
        for item in changed:
            self.stored[item.uid] = (self.stored[item.uid][0], item.flags or ())

    def _remove(self, gone: Sequence[int]) -> None:
        if gone:
            assert self.cursor is not None
            self.commit(messages=max(0, self.cursor.messages - len(gone)))
        for uid in gone:
            del self.stored[uid]
        self.gone += len(gone)


TestFollowingPlans = FollowingPlans.TestCase
TestFollowingPlans.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
