"""The river in: claim, connect, bring each folder in step, give the mailbox back."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from config.errors import InternalError, LeaseLost, TransientError, UserError
from config.queues import Lane
from schema.tables.sync import Folder
from tasks import mailboxes, schedule
from tasks.access import Actor
from tasks.events import NewEvent, record
from tasks.mailboxes import Protocol, Route
from tasks.runtime import Runtime
from tasks.schedule import Claim
from tasks.schedule.values import next_interval
from tasks.sync.commands import run_commands
from tasks.sync.epochs import lose_folders
from tasks.sync.folder import NOTHING, FolderOutcome, FolderStopped, sync_folder
from tasks.sync.folders import StoredFolder, apply_listing, compare_listing, load_folders, sync_order
from tasks.sync.missing import delete_missing
from tasks.sync.work import Work, Writer
from tasks.wire.imap import CommandRefused, FolderStatus, FolderUnavailable, ImapSession, LoginRefused

TASK_SECONDS = 10.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Synced:
    """What a pass over a mailbox came to. ``out_of_time``: the slice ended with work left;
    ``complete``: every followed folder is in step."""

    changed: bool
    complete: bool
    out_of_time: bool = False


def sync_due(actor: Actor, runtime: Runtime, lane: Lane, more: Callable[[], None]) -> int:
    """Sync mailboxes of a lane until none is due or the task's time is up. ``more`` is called once if
    there was work, so that others join in. Returns how many were synced."""
    until = time.monotonic() + TASK_SECONDS
    done = 0
    while time.monotonic() < until and not runtime.stopping.is_set():
        claims = schedule.claim(runtime, lane)
        if not claims:
            break
        if not done:
            more()
        sync_mailbox(actor, runtime, claims[0])
        done += 1
    return done


def sync_mailbox(actor: Actor, runtime: Runtime, claim: Claim) -> None:
    """One slice of work on one claimed mailbox. Faults of the server or the settings end up in the
    schedule; only faults of ours are raised."""
    log = _log.bind(mailbox_id=claim.mailbox_id)
    with runtime.heartbeat.holding(claim.lease):
        try:
            with runtime.db.begin() as session:
                route = mailboxes.route(session, runtime.keyring, claim.mailbox_id, Protocol.IMAP)
            outcome = _sync(runtime, claim, route)
        except LeaseLost as error:
            log.warning("sync.lease_lost", error=str(error))
        except LoginRefused as error:
            log.warning("sync.login_refused", words=error.words)
            with runtime.db.begin() as session:
                schedule.fence(session, claim.lease, runtime.settings.lease_seconds)
                schedule.fail(session, claim, str(error))
                mailboxes.login_refused(session, claim.mailbox_id, Protocol.IMAP, error.words)
        except (TransientError, UserError, InternalError) as error:
            log.warning("sync.failed", error=str(error), code=error.code)
            _give_back_failed(runtime, claim, str(error))
        except Exception as error:
            _give_back_failed(runtime, claim, f"unexpected {type(error).__name__}")
            raise
        else:
            _give_back(runtime, claim, route, outcome)
            if outcome.changed:
                log.info("mailbox.synced", changed=outcome.changed, complete=outcome.complete)


def _sync(runtime: Runtime, claim: Claim, route: Route) -> Synced:
    settings = runtime.settings
    deadline = time.monotonic() + settings.sync_slice_seconds
    imap = ImapSession.open(
        route.endpoint,
        route.login,
        route.password,
        timeout=settings.imap_timeout_seconds,
        connect_timeout=settings.connect_timeout_seconds,
    )
    try:
        with ThreadPoolExecutor(1, "writer") as executor:
            work = Work(
                runtime=runtime,
                claim=claim,
                route=route,
                imap=imap,
                now=claim.claimed_at,
                deadline=deadline,
                careful=claim.failures > 0 or claim.crashes > 0,
                writer=Writer(executor),
            )
            work.commit(lambda session: mailboxes.login_worked(session, claim.mailbox_id, Protocol.IMAP))
            return _sync_folders(work)
    finally:
        imap.close()


def _sync_folders(work: Work) -> Synced:
    folders = _follow(work)
    followed = sorted((f for f in folders if f.followed), key=sync_order)
    changed = run_commands(work, folders) > 0
    waiting = [f for f in followed if f.retry_at is not None and f.retry_at > work.now]
    looked_at = [f for f in followed if f not in waiting]
    statuses = work.imap.status([f.wire_name for f in looked_at if f.cursor is not None])
    complete = not waiting
    for folder in looked_at:
        if work.out_of_time:
            return Synced(changed, complete=False, out_of_time=True)
        outcome = _one_folder(work, folder, statuses.get(folder.wire_name))
        changed = changed or outcome.changed
        complete = complete and outcome.complete
    if complete:
        gone = work.commit(
            lambda session: delete_missing(
                session, work.route.mailbox_id, work.route.uid, work.claim.claimed_at
            )
        )
        changed = changed or gone > 0
    return Synced(changed, complete, work.out_of_time and not complete)


def _follow(work: Work) -> Sequence[StoredFolder]:
    """Take over what LIST shows, if it differs from what is stored."""
    listed = work.imap.folders()
    mailbox_id = work.route.mailbox_id
    with work.runtime.db.begin() as session:
        stored = load_folders(session, mailbox_id)
    changes = compare_listing(stored, listed, work.route.folders)
    if not (changes.appeared or changes.altered or changes.gone):
        return stored

    def apply(session: Session) -> list[StoredFolder]:
        apply_listing(session, mailbox_id, work.route.uid, changes, work.route.folders)
        lose_folders(session, [folder.id for folder in changes.gone])
        return load_folders(session, mailbox_id)

    return work.commit(apply)


def _one_folder(work: Work, folder: StoredFolder, status: FolderStatus | None) -> FolderOutcome:
    """A folder fails alone: its fault is noted, and the others go on."""
    try:
        return sync_folder(work, folder, status)
    except (FolderUnavailable, CommandRefused, FolderStopped) as error:
        message = str(error)
        _log.warning("folder.failed", mailbox_id=work.route.mailbox_id, folder=folder.name, error=message)
        work.commit(lambda session: _folder_failed(session, folder, message))
        return FolderOutcome(changed=False, complete=False) if folder.failures < 3 else NOTHING


def _folder_failed(session: Session, folder: StoredFolder, error: str) -> None:
    session.execute(
        update(Folder)
        .where(Folder.id == folder.id)
        .values(
            failures=Folder.failures + 1,
            last_error=error[:500],
            retry_at=func.now() + func.make_interval(0, 0, 0, 0, 0, min(60, 2**folder.failures)),
        )
    )


def _give_back(runtime: Runtime, claim: Claim, route: Route, outcome: Synced) -> None:
    settings = runtime.settings
    with runtime.db.begin() as session:
        schedule.fence(session, claim.lease, settings.lease_seconds)
        if outcome.out_of_time:
            schedule.release(session, claim, Lane.HISTORY)
            return
        interval = next_interval(
            claim.interval,
            changed=outcome.changed or not outcome.complete,
            shortest=settings.poll_min_seconds,
            longest=settings.poll_max_seconds,
        )
        pause = route.poll_seconds if route.poll_seconds is not None else interval
        schedule.finish(session, claim, lane=Lane.SYNC, interval=interval, pause=pause)
        if outcome.changed or claim.asked:
            record(
                session,
                [
                    NewEvent(
                        "sync.completed",
                        claim.mailbox_id,
                        str(route.uid),
                        {"mailbox": str(route.uid), "address": route.address, "changed": outcome.changed},
                    )
                ],
            )


def _give_back_failed(runtime: Runtime, claim: Claim, error: str) -> None:
    with runtime.db.begin() as session:
        schedule.fail(session, claim, error)
