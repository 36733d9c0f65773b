"""What one look at a folder asks us to do.

no cursor, new UIDVALIDITY ──> StartEpoch                  RFC 9051 §2.3.1.1
the same to the last number ──> Nothing
QRESYNC trusted ──> fetch new · Resync(modseq)             RFC 7162 §3.2.5: flags and expunges
CONDSTORE trusted ──> fetch new · ChangedSince(modseq)     RFC 7162 §3.1.4: flags
otherwise ──> fetch new · the newest flags at each look, all within the hour
more gone than came and nobody says which ──> compare all UIDs
MODSEQs that cannot be ──> compare all, and a day without them
"""

from datetime import datetime, timedelta
from typing import assert_never

from tasks.sync.ranges import LAST_UID
from tasks.sync.values import (
    ChangedSince,
    Cursor,
    Look,
    NewestFlags,
    Nothing,
    Resync,
    Seen,
    StartEpoch,
    SyncPlan,
    Tracking,
)

NEWEST_FLAGS = 200
COMPARE_EVERY = timedelta(hours=1)  # where the server cannot tell what changed
RECONCILE_EVERY = timedelta(days=1)  # where it says it can
DOUBT_FOR = timedelta(days=1)  # after MODSEQs that cannot be


def plan_sync(stored: Cursor | None, seen: Seen, tracking: Tracking, now: datetime) -> SyncPlan:
    """Choose the cheapest plan that cannot miss a change. ``tracking`` is the best that the server offers
    and is trusted with."""
    if stored is None or seen.uidvalidity != stored.uidvalidity:
        return StartEpoch(seen.uidvalidity)
    match believable(stored, seen, tracking, now):
        case Tracking.NONE:
            return _plan_plain(stored, seen, now)
        case Tracking.CONDSTORE | Tracking.QRESYNC as told:
            return _plan_by_modseq(stored, seen, told, now)
        case other:
            assert_never(other)


def believable(stored: Cursor, seen: Seen, tracking: Tracking, now: datetime) -> Tracking:
    """What of a server's offer holds for this folder: nothing without HIGHESTMODSEQ, or while in doubt."""
    return Tracking.NONE if in_doubt(stored, now) or seen.highestmodseq is None else tracking


def in_doubt(stored: Cursor, now: datetime) -> bool:
    """Whether the folder's MODSEQs are not asked for: they contradicted themselves lately."""
    return stored.doubted_at is not None and now - stored.doubted_at < DOUBT_FOR


def _plan_plain(stored: Cursor, seen: Seen, now: datetime) -> SyncPlan:
    holes = has_holes(stored, seen)
    compare = compare_due(stored, now, COMPARE_EVERY) or (not holes and stored.messages != seen.messages)
    if not seen.messages and same_numbers(stored, seen) and not holes and not compare:
        return Nothing()
    return Look(holes, None if compare else NewestFlags(NEWEST_FLAGS), compare)


def _plan_by_modseq(stored: Cursor, seen: Seen, tracking: Tracking, now: datetime) -> SyncPlan:
    holes = has_holes(stored, seen)
    since = stored.since
    if stored.modseq is None or since is None:
        return Look(holes, None, compare=True)  # the first pass that can set a MODSEQ
    if cannot_be(stored, seen):
        return Look(holes, None, compare=True, doubt=True)
    due = compare_due(stored, now, RECONCILE_EVERY)
    same = seen.highestmodseq == stored.modseq == since and same_numbers(stored, seen)
    if same and not holes and not due:
        return Nothing()
    if tracking is Tracking.QRESYNC:
        return Look(holes, None if due else Resync(since), due)
    compare = due or (not holes and stored.messages != seen.messages)
    return Look(holes, None if compare else ChangedSince(since), compare)


def cannot_be(stored: Cursor, seen: Seen) -> bool:
    """Whether HIGHESTMODSEQ contradicts what was seen before: it went backwards, or messages came and it
    did not grow (RFC 7162 §3.1.2.2)."""
    if stored.modseq is None or seen.highestmodseq is None:
        return False
    came = (
        stored.uidnext is not None
        and seen.uidnext is not None
        and seen.uidnext > stored.uidnext
        and seen.messages > stored.messages
    )
    return seen.highestmodseq < stored.modseq or (came and seen.highestmodseq == stored.modseq)


def stood_still(stored: Cursor, seen: Seen) -> bool:
    """Whether HIGHESTMODSEQ is the same though UIDs were given out: a contradiction if one of them is a
    message, and none if the server merely skipped them."""
    if stored.uidnext is None or seen.uidnext is None or seen.highestmodseq is None:
        return False
    return seen.uidnext > stored.uidnext and seen.highestmodseq == stored.modseq


def has_holes(stored: Cursor, seen: Seen) -> bool:
    """Whether UIDs below UIDNEXT were not passed over yet. Without UIDNEXT one must look."""
    if seen.uidnext is None:
        return seen.messages > 0 or bool(stored.uids)
    return bool(stored.uids.holes(seen.uidnext - 1))


def arrived(stored: Cursor, uidvalidity: int | None, uidnext: int | None) -> bool:
    """Whether the folder got a message since the pass that left this cursor, as far as UIDNEXT tells."""
    if uidvalidity is not None and uidvalidity != stored.uidvalidity:
        return True
    return None not in (stored.uidnext, uidnext) and stored.uidnext != uidnext


def last_uid(seen: Seen) -> int:
    """The highest UID the folder can hold now."""
    return LAST_UID if seen.uidnext is None else seen.uidnext - 1


def compare_due(stored: Cursor, now: datetime, every: timedelta) -> bool:
    """Whether the last comparison of everything is too old."""
    return stored.compared_at is None or now - stored.compared_at >= every


def same_numbers(stored: Cursor, seen: Seen) -> bool:
    """Whether UIDNEXT and the count are those of the last look that was completed. Where they are not, what
    is stored is counted: a look that was broken off, or a command of ours, has stored more than they tell."""
    return (stored.uidnext, stored.messages) == (seen.uidnext, seen.messages)
