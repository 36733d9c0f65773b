"""The river in: claim, connect, bring each folder in step, give the mailbox back."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import structlog
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from config.errors import InternalError, LeaseLost, MailwrightError, NotFound, TransientError, UserError
from config.queues import Lane
from schema.tables.sync import EpochState, Folder, FolderEpoch
from tasks import mailboxes, schedule
from tasks.access import Actor
from tasks.events import record
from tasks.mailboxes import NotReady, Protocol, Route
from tasks.runtime import Runtime
from tasks.schedule import Claim
from tasks.schedule.faults import blames_host
from tasks.schedule.slots import Slots, tell_slow
from tasks.schedule.values import next_interval, rest
from tasks.sync import polling
from tasks.sync.commands.engine import run_commands
from tasks.sync.epochs import RESETS_IN_A_ROW, lose_folders
from tasks.sync.fetch import CAREFUL_MESSAGES
from tasks.sync.folder import NOTHING, FolderOutcome, FolderStopped, leave, sync_folder
from tasks.sync.folders import (
    Opening,
    StoredFolder,
    apply_listing,
    compare_listing,
    load_folders,
    opening_of,
    sync_order,
)
from tasks.sync.held import Held, HeldSessions
from tasks.sync.missing import any_missing, delete_missing
from tasks.sync.plan import arrived
from tasks.sync.renames import apply_renames, recognise
from tasks.sync.work import Work
from tasks.wire.imap import (
    CommandRefused,
    Disconnected,
    FolderAbsent,
    FolderStatus,
    FolderUnavailable,
    ImapError,
    ImapSession,
    LoginRefused,
)
from tasks.wire.net import NetError

TASK_SECONDS = 10.0
AT_ONCE = 128  # mailboxes of one look
OTHERS_EVERY = 0.2  # seconds between questions for mailboxes whose sessions do not rest here
CLAIM_PATIENCE = 2.0  # seconds that a claimed mailbox waits for its full sync before it is handed on
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 15, 3600  # of a folder that failed; doubled each time
GIVEN_UP = 4  # failures in a row after which the mailbox counts as complete without the folder
MISSING_FOR = timedelta(hours=1)  # after which a complete pass suffices
STOPPED_SECONDS = 86_400  # of a folder that is renumbered again and again

_log = structlog.get_logger()


class NoFolders(TransientError):
    """LIST was empty."""


@dataclass(frozen=True, slots=True)
class Synced:
    """What a pass over a mailbox came to. ``out_of_time``: the slice ended with work left;
    ``complete``: every followed folder is in step."""

    changed: bool
    complete: bool
    out_of_time: bool = False


def sync_due(actor: Actor, runtime: Runtime, lane: Lane, more: Callable[[], None]) -> int:
    """Sync mailboxes of a lane until none is due or the task's time is up: those whose sessions rest here,
    many at once, and for as long again others. ``more`` is called once if there was work, so that others
    join in. Returns how many were synced."""
    join = cache(more)
    until = time.monotonic() + TASK_SECONDS
    done, others_at = 0, 0.0
    while (began := time.monotonic()) < until and not runtime.stopping.is_set():
        found = _poll_resting(actor, runtime, lane, join)
        if not found or began > others_at:
            others_at = began + OTHERS_EVERY
            fair = 2 * time.monotonic() - began
            found += _sync_others(actor, runtime, lane, join, min(fair, until))
        if not found:
            break
        done += found
    return done


def compare_all(session: Session, mailboxes: Sequence[int]) -> None:
    """Let the next sync of these mailboxes hold every stored place against the server."""
    session.execute(
        update(FolderEpoch)
        .where(FolderEpoch.mailbox_id.in_(mailboxes), FolderEpoch.state == EpochState.CURRENT)
        .values(compared_at=None)
    )


def _poll_resting(actor: Actor, runtime: Runtime, lane: Lane, join: Callable[[], None]) -> int:
    """Look at due mailboxes whose sessions rest here, and sync those that changed. Returns how many."""
    sessions = runtime.kept(HeldSessions)
    sessions.review(runtime)
    held = sessions.mailboxes()
    claims = schedule.claim(runtime, lane, AT_ONCE, held=held, resting=True) if held else []
    if not claims:
        return 0
    join()
    began = time.monotonic()
    for claim, statuses in polling.look(runtime, sessions, claims):
        if time.monotonic() - began > CLAIM_PATIENCE:
            _hand_on(runtime, claim)
        else:
            sync_mailbox(actor, runtime, claim, None if claim.asked else statuses)
    return len(claims)


def _sync_others(actor: Actor, runtime: Runtime, lane: Lane, join: Callable[[], None], until: float) -> int:
    """Sync due mailboxes one after the other, at least one. Returns how many."""
    done = 0
    while (claim := _claim_other(runtime, lane)) is not None:
        join()
        try:
            sync_mailbox(actor, runtime, claim)
        finally:
            runtime.kept(Slots).give_back(claim.host)
        tell_slow(runtime)
        done += 1
        if time.monotonic() > until or runtime.stopping.is_set():
            break
    return done


def _claim_other(runtime: Runtime, lane: Lane) -> Claim | None:
    """A due mailbox whose session does not rest here, and a slot for its host."""
    slots = runtime.kept(Slots)
    held = runtime.kept(HeldSessions).mailboxes()
    with slots.choosing:
        claims = schedule.claim(runtime, lane, held=held, full=slots.full())
        for claim in claims:
            slots.take(claim.host)
            return claim
    return None


def _hand_on(runtime: Runtime, claim: Claim) -> None:
    """Give back a mailbox whose turn would come too late, due at once."""
    with runtime.db.begin() as session:
        schedule.release(session, claim, claim.lane)
        if claim.probe:
            schedule.untried(session, Protocol.IMAP, claim.host)


def sync_mailbox(
    actor: Actor, runtime: Runtime, claim: Claim, statuses: polling.Statuses | None = None
) -> None:
    """One slice of work on one claimed mailbox. Faults of the server or the settings end up in the
    schedule; only faults of ours are raised. ``statuses``: what was told of all its folders just now."""
    log = _log.bind(mailbox_id=claim.mailbox_id)
    with runtime.heartbeat.holding(claim.lease):
        try:
            outcome = _sync(runtime, claim, statuses)
        except LeaseLost as error:
            log.warning("sync.lease_lost", error=str(error))
        except NotReady as error:
            log.info("sync.not_ready", reason=str(error))
            _give_back_untried(runtime, claim)
        except LoginRefused as error:
            log.warning("sync.login_refused", words=error.words)
            _give_back_refused(runtime, claim, error)
            _answered(runtime, claim)
        except (TransientError, UserError, InternalError) as error:
            log.warning("sync.failed", error=str(error), code=error.code)
            _give_back_failed(runtime, claim, error)
        except Exception as error:
            _give_back_failed(runtime, claim, InternalError(f"unexpected {type(error).__name__}"))
            raise
        else:
            _answered(runtime, claim)
            if outcome.changed:
                log.info("mailbox.synced", changed=outcome.changed, complete=outcome.complete)


def _sync(runtime: Runtime, claim: Claim, statuses: polling.Statuses | None) -> Synced:
    """Sync with the session that rests here, or with a new one, which rests here afterwards."""
    opening = _opening(runtime, claim)
    held = runtime.kept(HeldSessions).take(claim.mailbox_id)
    if held is not None and held.version != opening.version:
        held.imap.leave()
    elif held is not None:
        changed = held.settings != opening.settings
        if changed:
            held.settings = opening.settings
            held.route = _route(runtime, claim, held)
        try:
            return _sync_with(runtime, claim, held, opening, statuses, proved=not changed)
        except (Disconnected, NetError):  # it died while it rested, perhaps: what is committed is, and a
            opening = _opening(runtime, claim)  # new one goes on
    route = _route(runtime, claim)
    slots, began = runtime.kept(Slots), time.monotonic()
    try:
        imap = ImapSession.open(
            route.endpoint,
            route.login,
            route.password,
            timeout=runtime.settings.imap_timeout_seconds,
            connect_timeout=runtime.settings.connect_timeout_seconds,
            use_qresync=route.trust_condstore,
        )
    except (ImapError, NetError):
        slots.waited(Protocol.IMAP, claim.host, time.monotonic() - began)
        raise
    slots.waited(Protocol.IMAP, claim.host, imap.longest_wait())
    fresh = Held(imap, opening.version, opening.settings, route)
    return _sync_with(runtime, claim, fresh, opening, None, proved=False)


def _opening(runtime: Runtime, claim: Claim) -> Opening:
    opening = opening_of(runtime, claim.mailbox_id)
    if opening is None:
        raise NotFound("the mailbox was removed.")
    return opening


def _route(runtime: Runtime, claim: Claim, held: Held | None = None) -> Route:
    """The way to the server; where there is none, a session held until now is left."""
    try:
        return mailboxes.open_route(runtime, claim.mailbox_id, Protocol.IMAP)
    except BaseException:
        if held is not None:
            held.imap.leave()
        raise


def _sync_with(
    runtime: Runtime,
    claim: Claim,
    held: Held,
    opening: Opening,
    statuses: polling.Statuses | None,
    *,
    proved: bool,
) -> Synced:
    """Sync, and give the mailbox back. Any error closes the session; it rests with no folder open. That its
    login worked is told unless it is ``proved``."""
    well = False
    work = Work(
        runtime=runtime,
        claim=claim,
        route=held.route,
        imap=held.imap,
        now=claim.claimed_at,
        deadline=time.monotonic() + runtime.settings.sync_slice_seconds,
        suspicious=claim.failures > 0 or claim.crashes > 0,
    )
    try:
        if not proved:
            work.later(lambda session: mailboxes.login_worked(session, claim.mailbox_id, Protocol.IMAP))
        outcome = _sync_folders(work, held, opening, statuses)
        well = runtime.settings.held_sessions > 0 and not runtime.stopping.is_set() and _left(held.imap)
    except (ImapError, NetError):
        work.flush()  # what came until then
        raise
    finally:
        work.close()
        runtime.kept(Slots).waited(Protocol.IMAP, claim.host, held.imap.longest_wait())
        if well:
            runtime.kept(HeldSessions).rest({claim.mailbox_id: held})
        else:
            held.imap.close()
    _give_back(work, outcome)
    return outcome


def _left(imap: ImapSession) -> bool:
    """Leave the open folder. False where the server does not let us (pymap refuses CLOSE after EXAMINE) or
    has gone: all is committed by now, so that is no failure of the sync."""
    try:
        imap.unselect()
    except (ImapError, NetError):
        return False
    return True


def _sync_folders(work: Work, held: Held, opening: Opening, statuses: polling.Statuses | None) -> Synced:
    folders = opening.folders if statuses is not None else _follow(work, held, opening.folders)
    changed = opening.commands and run_commands(work, folders) > 0
    if changed:  # cursors may have moved
        statuses = None
        with work.reading() as session:
            folders = load_folders(session, work.route.mailbox_id)
    followed = sorted((f for f in folders if f.followed), key=sync_order)
    waiting = [f for f in followed if _rests(work, f)]
    looked_at = [f for f in followed if f not in waiting]
    if statuses is None or work.suspicious:
        statuses = _statuses(work, looked_at)
    complete = all(folder.failures >= GIVEN_UP for folder in waiting)
    for folder in looked_at:
        if work.out_of_time:
            return Synced(changed, complete=False, out_of_time=True)
        outcome = _one_folder(work, folder, statuses.get(folder.wire_name))
        changed = changed or outcome.changed
        complete = complete and outcome.complete
    if complete and opening.missing:
        gone, complete = _settle_missing(work)
        changed = changed or gone > 0
    return Synced(changed, complete, work.out_of_time and not complete)


def _settle_missing(work: Work) -> tuple[int, bool]:
    """Delete what was missing when this complete pass began. Returns how many, and whether all was settled.

    While a pass looks at one folder a message can be moved from the next into the last, and is then seen
    in none. So the folders are asked once more: where none got a message since it was looked at, what is
    missing is nowhere. What is missing for long is deleted without, as some servers' numbers never agree.
    """
    with work.reading() as session:
        if not any_missing(session, work.route.mailbox_id, work.claim.claimed_at):
            return 0, True
        looked_at = load_folders(session, work.route.mailbox_id)
    proved = _nothing_came(work, looked_at)
    since = work.claim.claimed_at - (timedelta() if proved else MISSING_FOR)
    gone = work.commit(lambda session: delete_missing(session, work.route.mailbox_id, work.route.uid, since))
    return gone, proved


def _nothing_came(work: Work, looked_at: Sequence[StoredFolder]) -> bool:
    """Whether every folder is where the cursor has it, and there is no other."""
    if {each.wire_name for each in work.imap.folders()} != {each.wire_name for each in looked_at}:
        return False
    followed = [each for each in looked_at if each.followed and each.cursor is not None and not each.failures]
    now = work.imap.status([each.wire_name for each in followed])
    return all(
        (seen := now.get(each.wire_name)) is not None and not arrived(cursor, seen.uidvalidity, seen.uidnext)
        for each in followed
        if (cursor := each.cursor) is not None
    )


def _rests(work: Work, folder: StoredFolder) -> bool:
    """Whether a folder that failed is left alone this time; not where someone asked for this sync."""
    return folder.retry_at is not None and folder.retry_at > work.now and not work.claim.asked


def _statuses(work: Work, folders: Sequence[StoredFolder]) -> dict[bytes, FolderStatus]:
    """What can be told without opening folders. Where something died lately each folder is opened
    instead, so that it shows which one it was."""
    if work.suspicious:
        return {}
    return work.imap.status([f.wire_name for f in folders if f.cursor is not None and not f.failures])


def _follow(work: Work, held: Held, stored: Sequence[StoredFolder]) -> Sequence[StoredFolder]:
    """Take over what LIST shows, if it differs from what is stored."""
    held.listed_at = time.monotonic()
    held.listed = listed = work.imap.folders()
    if not listed:  # INBOX is always there (RFC 9051 §5.1): do not delete a mailbox for a server's slip
        raise NoFolders("the server listed no folder at all; it is asked again later.")
    mailbox_id = work.route.mailbox_id
    if renamed := recognise(work, stored, listed):
        stored = work.commit(lambda session: apply_renames(session, work, renamed))
    changes = compare_listing(stored, listed, work.route.folders)
    if not (changes.appeared or changes.altered or changes.gone):
        return stored

    def apply(session: Session) -> list[StoredFolder]:
        apply_listing(session, mailbox_id, work.route.uid, changes, work.route.folders)
        lose_folders(session, [folder.id for folder in changes.gone])
        return load_folders(session, mailbox_id)

    return work.commit(apply)


def _one_folder(work: Work, folder: StoredFolder, status: FolderStatus | None) -> FolderOutcome:
    """A folder fails alone: its fault is noted, and the others go on. One that ends the session a second
    time in a row is noted too, and from then on comes after the others."""
    suspicious = work.suspicious or folder.failures > 0
    work.careful = CAREFUL_MESSAGES if suspicious else 0
    try:
        return sync_folder(work, folder, status)
    except (FolderUnavailable, CommandRefused, FolderStopped) as error:
        if isinstance(error, FolderAbsent):
            leave(work, folder)
        message = str(error)
        _log.warning("folder.failed", mailbox_id=work.route.mailbox_id, folder=folder.name, error=message)
        stopped = isinstance(error, FolderStopped)
        work.commit(lambda session: _folder_failed(session, folder, message, stopped=stopped))
        settled = stopped or folder.failures + 1 >= GIVEN_UP
        return NOTHING if settled else FolderOutcome(changed=False, complete=False)
    except (ImapError, NetError) as error:
        message = str(error)
        if suspicious:
            work.commit(lambda session: _folder_failed(session, folder, message))
        raise


def _folder_failed(session: Session, folder: StoredFolder, error: str, *, stopped: bool = False) -> None:
    """Note a folder's fault. A ``stopped`` one may be renumbered once a day, until it holds still."""
    pause = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(folder.failures, 20))
    values: dict[str, object] = {"failures": folder.failures + 1, "last_error": error[:500]}
    if stopped:
        pause = STOPPED_SECONDS
        values |= {"failures": max(GIVEN_UP, folder.failures + 1), "resets": RESETS_IN_A_ROW - 1}
    values["retry_at"] = func.now() + timedelta(seconds=pause)
    session.execute(update(Folder).where(Folder.id == folder.id).values(**values))


def _give_back(work: Work, outcome: Synced) -> None:
    claim, route, settings = work.claim, work.route, work.runtime.settings
    interval = next_interval(
        claim.interval,
        changed=outcome.changed or not outcome.complete,
        shortest=settings.poll_min_seconds,
        longest=settings.poll_max_seconds,
    )
    after = rest(interval, route.poll_seconds)

    def give_back(session: Session) -> None:
        if outcome.out_of_time:
            schedule.release(session, claim, Lane.HISTORY)
            return
        schedule.finish(session, claim, lane=Lane.SYNC, rest=after)
        if outcome.changed or claim.asked:
            done = polling.completed(claim.mailbox_id, route.uid, route.address, changed=outcome.changed)
            record(session, [done])

    work.commit(give_back)


def _give_back_untried(runtime: Runtime, claim: Claim) -> None:
    """Give back a mailbox that is not ready. Looked at once more under the lock of its lease, so that a
    change which makes it ready, and due, is not overwritten."""
    with runtime.db.begin() as session:
        try:
            schedule.fence(session, claim.lease, runtime.settings.lease_seconds)
            mailboxes.route(session, runtime.keyring, claim.mailbox_id, Protocol.IMAP)
        except NotReady as error:
            schedule.postpone(session, claim, str(error), error.until)
            if claim.probe:
                schedule.untried(session, Protocol.IMAP, claim.host)
        except (LeaseLost, UserError):
            pass  # another has it, or it was removed meanwhile
        else:
            schedule.release(session, claim, claim.lane)


def _give_back_refused(runtime: Runtime, claim: Claim, error: LoginRefused) -> None:
    with runtime.db.begin() as session:
        try:
            schedule.fence(session, claim.lease, runtime.settings.lease_seconds)
        except LeaseLost:
            return  # another tries these credentials now, and will count
        schedule.fail(session, claim, str(error))
        mailboxes.login_refused(session, claim.mailbox_id, Protocol.IMAP, error.words)


def _give_back_failed(runtime: Runtime, claim: Claim, error: MailwrightError) -> None:
    """Count the fault: against the host where it speaks against that, against the mailbox unless the host is
    left alone now."""
    first = claim.probe or not (claim.failures or claim.crashes)
    blamed = blames_host(error, first=first)
    with runtime.db.begin() as session:
        try:
            schedule.fence(session, claim.lease, runtime.settings.lease_seconds)
        except LeaseLost:
            return  # another tries it now, and will count
        until = None
        if blamed:
            until = schedule.fault(session, Protocol.IMAP, claim.host, str(error), probe=claim.probe)
        elif claim.probe:
            schedule.untried(session, Protocol.IMAP, claim.host)
        if until is None:
            schedule.fail(session, claim, str(error))
        else:
            schedule.postpone(session, claim, str(error), until)
    if isinstance(error, CommandRefused | FolderUnavailable):
        _answered(runtime, claim)


def _answered(runtime: Runtime, claim: Claim) -> None:
    """Tell the host's breaker that it answered, where that is news."""
    if claim.doubted:
        schedule.answered(runtime.db, Protocol.IMAP, claim.host)
