"""What one look at a folder asks us to do.

no cursor, new UIDVALIDITY ──> StartEpoch                  RFC 9051 §2.3.1.1
the same to the last number ──> Nothing
CONDSTORE trusted ──> fetch new · ChangedSince(modseq)     RFC 7162 §3.1.4
otherwise ──> fetch new · the newest flags at each look, all within the hour
more gone than came ──> compare all UIDs
"""

from datetime import datetime, timedelta

from tasks.sync.ranges import LAST_UID
from tasks.sync.values import ChangedSince, Cursor, Look, NewestFlags, Nothing, Seen, StartEpoch, SyncPlan

NEWEST_FLAGS = 200
COMPARE_EVERY = timedelta(hours=1)  # where the server cannot tell what changed
RECONCILE_EVERY = timedelta(days=1)  # where it says it can


def plan_sync(stored: Cursor | None, seen: Seen, *, condstore: bool, now: datetime) -> SyncPlan:
    """Choose the cheapest plan that cannot miss a change.

    ``condstore``: the server offers it, showed a HIGHESTMODSEQ for this folder, and is trusted.
    """
    if stored is None or seen.uidvalidity != stored.uidvalidity:
        return StartEpoch(seen.uidvalidity)
    condstore = condstore and seen.highestmodseq is not None
    holes = has_holes(stored, seen)
    same_count = same_numbers(stored, seen)
    due = compare_due(stored, now, RECONCILE_EVERY if condstore else COMPARE_EVERY)
    compare = due or (not holes and stored.messages != seen.messages)
    if condstore and stored.modseq is not None and seen.highestmodseq is not None:
        if seen.highestmodseq < stored.modseq:
            return Look(holes, None, compare=True)  # MODSEQ went backwards: believe only a comparison
        unchanged = seen.highestmodseq == stored.modseq and same_count and not holes
        if unchanged and not compare:
            return Nothing()
        return Look(holes, None if compare else ChangedSince(stored.modseq), compare)
    if condstore:
        return Look(holes, None, compare=True)  # the first pass that can set a MODSEQ
    if not seen.messages and same_count and not holes and not compare:
        return Nothing()
    return Look(holes, None if compare else NewestFlags(NEWEST_FLAGS), compare)


def same_numbers(stored: Cursor, seen: Seen) -> bool:
    """Whether UIDNEXT and the count are those of the last look that was completed. Where they are not, what
    is stored is counted: a look that was broken off, or a command of ours, has stored more than they tell."""
    return (stored.uidnext, stored.messages) == (seen.uidnext, seen.messages)


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
