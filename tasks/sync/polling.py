"""The cheap look at many mailboxes whose sessions rest here.

claims ──> STATUS (and now and then LIST) written to all ──> answers read from all ──> plan_sync
                 nothing changed: one UPDATE gives them all back · the rest is synced in full
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import text

from tasks import schedule
from tasks.events import NewEvent, record
from tasks.mailboxes import Protocol
from tasks.runtime import Runtime
from tasks.schedule import Claim
from tasks.schedule.values import Rest, next_interval, rest
from tasks.sync.folder import tracking
from tasks.sync.folders import VERSION
from tasks.sync.held import Held, HeldSessions
from tasks.sync.plan import plan_sync
from tasks.sync.ranges import Ranges
from tasks.sync.values import Cursor, Nothing, Seen, Tracking
from tasks.wire.imap import FolderStatus, ImapError
from tasks.wire.net import NetError

LIST_EVERY: Final = 60.0
"""Seconds after which a look asks for the folders too."""
LONGEST_LOOK: Final = 5.0
"""Seconds that all servers of one look together may take; at most a third of a lease."""

LOOK = text(f"""
    -- What is stored of the followed folders of some mailboxes. Where `whole`, every UID below `uidnext`
    -- was passed over. Indexes: folders_present_key, folder_epochs_current_key.
    SELECT m.id, m.uid, m.address, m.poll_seconds, {VERSION} AS version,
           f.wire_name, f.failures + f.resets AS faults, e.uidvalidity, e.uidnext, e.messages, e.modseq,
           e.uids = int8multirange(int8range(1, e.uidnext)) AS whole, e.flags_checked_at, e.compared_at,
           e.modseq_before, e.doubted_at
    FROM mailwright.mailboxes AS m
    JOIN mailwright.providers AS p ON p.id = m.provider_id
    LEFT JOIN mailwright.mailbox_secrets AS x ON x.mailbox_id = m.id
    JOIN mailwright.folders AS f ON f.mailbox_id = m.id AND f.followed AND f.gone_at IS NULL
    LEFT JOIN mailwright.folder_epochs AS e ON e.folder_id = f.id AND e.state = 'current'
    WHERE m.id = ANY(:mailboxes)
""")  # noqa: S608  the version is ours

WORK_WAITS = text("""
    -- Mailboxes with something to be done that no STATUS shows. Indexes: commands_due, messages_missing.
    SELECT mailbox_id FROM mailwright.commands
    WHERE mailbox_id = ANY(:mailboxes) AND state = 'queued' AND due_at <= now()
    UNION
    SELECT mailbox_id FROM mailwright.messages WHERE mailbox_id = ANY(:mailboxes) AND state = 'missing'
""")

_log = structlog.get_logger()


@dataclass(slots=True)
class _Stored:
    """A mailbox as it is stored. ``cursors`` by the wire name of the folder; None: look in full."""

    uid: UUID
    address: str
    poll_seconds: int | None
    version: str
    cursors: dict[bytes, Cursor | None] = field(default_factory=dict)


Statuses = Mapping[bytes, FolderStatus]


def look(
    runtime: Runtime, sessions: HeldSessions, claims: Sequence[Claim]
) -> list[tuple[Claim, Statuses | None]]:
    """Give back those of ``claims`` in which nothing changed. Returns the others, whose sessions rest on, and
    what was told of their folders, where these are still those that are stored."""
    began = time.monotonic()
    patience = min(LONGEST_LOOK, runtime.settings.lease_seconds / 3)
    taken = {claim: held for claim in claims if (held := sessions.take(claim.mailbox_id)) is not None}
    try:
        stored = _stored(runtime, [claim.mailbox_id for claim in taken])
        for claim in list(taken):
            known = stored.get(claim.mailbox_id)
            if known is None or known.version != taken[claim].version:
                taken.pop(claim).imap.leave()
        asked = _ask(taken, stored)
        told = _told(taken, asked, began + patience)
        unchanged = [
            claim
            for claim, statuses in told.items()
            if _same(taken[claim], stored[claim.mailbox_id], statuses, claim.claimed_at)
        ]
        done = _give_back(runtime, unchanged, stored)
    except BaseException:
        for held in taken.values():
            held.imap.leave()
        raise
    sessions.rest({claim.mailbox_id: held for claim, held in taken.items() if held.imap.alive})
    return [(claim, told.get(claim)) for claim in claims if claim.mailbox_id not in done]


def _stored(runtime: Runtime, mailboxes: Sequence[int]) -> dict[int, _Stored]:
    found: dict[int, _Stored] = {}
    if not mailboxes:
        return found
    with runtime.db.begin() as session:
        for row in session.execute(LOOK, {"mailboxes": mailboxes}):
            known = found.get(row.id)
            if known is None:
                known = found[row.id] = _Stored(row.uid, row.address, row.poll_seconds, row.version)
            known.cursors[row.wire_name] = _cursor(row)
        for mailbox_id in session.execute(WORK_WAITS, {"mailboxes": mailboxes}).scalars():
            if mailbox_id in found:
                found[mailbox_id].cursors = {b"": None}
    return found


def _cursor(row: Any) -> Cursor | None:
    if row.faults or not row.whole:
        return None
    return Cursor(
        uidvalidity=row.uidvalidity,
        uids=Ranges.below(row.uidnext),
        uidnext=row.uidnext,
        messages=row.messages,
        modseq=row.modseq,
        flags_checked_at=row.flags_checked_at,
        compared_at=row.compared_at,
        modseq_before=row.modseq_before,
        doubted_at=row.doubted_at,
    )


def _ask(taken: Mapping[Claim, Held], stored: Mapping[int, _Stored]) -> list[Claim]:
    """Write to all whose every folder can be told by STATUS."""
    now, asked = time.monotonic(), []
    for claim, held in taken.items():
        cursors = stored[claim.mailbox_id].cursors
        if None in cursors.values():
            continue
        try:
            held.imap.ask(list(cursors), listing=claim.asked or now - held.listed_at > LIST_EVERY)
        except (ImapError, NetError):
            continue  # it has died while it rested; the full sync opens another
        asked.append(claim)
    return asked


def _told(taken: Mapping[Claim, Held], asked: Sequence[Claim], deadline: float) -> dict[Claim, Statuses]:
    """Read from all; what was told by those whose folders are listed as before."""
    found: dict[Claim, Statuses] = {}
    for claim in asked:
        held = taken[claim]
        try:
            statuses, listed = held.imap.told(max(0.01, deadline - time.monotonic()))
        except (ImapError, NetError) as error:
            _log.info("sync.session_ended", mailbox_id=claim.mailbox_id, error=str(error))
            continue
        if listed is not None:
            if listed != held.listed:
                continue
            held.listed_at = time.monotonic()
        found[claim] = statuses
    return found


def _same(held: Held, known: _Stored, statuses: Statuses, now: datetime) -> bool:
    """Whether every folder is as stored."""
    best = tracking(held.imap, trusted=held.route.trust_condstore)
    return all(
        cursor is not None and _nothing(cursor, statuses.get(name), best, now)
        for name, cursor in known.cursors.items()
    )


def _nothing(cursor: Cursor, status: FolderStatus | None, best: Tracking, now: datetime) -> bool:
    if status is None or status.uidvalidity is None:
        return False
    seen = Seen(status.uidvalidity, status.uidnext, status.messages, status.highestmodseq)
    return isinstance(plan_sync(cursor, seen, best, now), Nothing)


def _give_back(runtime: Runtime, claims: Sequence[Claim], stored: Mapping[int, _Stored]) -> set[int]:
    if not claims:
        return set()
    shortest, longest = runtime.settings.poll_min_seconds, runtime.settings.poll_max_seconds
    rests: dict[Claim, Rest] = {}
    events: defaultdict[int, list[NewEvent]] = defaultdict(list)
    for claim in claims:
        known = stored[claim.mailbox_id]
        interval = next_interval(claim.interval, changed=False, shortest=shortest, longest=longest)
        rests[claim] = rest(interval, known.poll_seconds)
        if claim.asked:
            events[claim.mailbox_id].append(
                completed(claim.mailbox_id, known.uid, known.address, changed=False)
            )
    with runtime.db.begin() as session:
        ours = schedule.finish_unchanged(session, rests)
        record(session, [event for mailbox_id in ours for event in events[mailbox_id]])
    for host in {claim.host for claim in claims if claim.doubted}:
        schedule.answered(runtime.db, Protocol.IMAP, host)
    return {claim.mailbox_id for claim in claims}


def completed(mailbox_id: int, uid: UUID, address: str, *, changed: bool) -> NewEvent:
    """The event of a sync that changed something, or that someone asked for."""
    return NewEvent(
        "sync.completed",
        mailbox_id,
        str(uid),
        {"mailbox": str(uid), "address": address, "changed": changed},
    )
