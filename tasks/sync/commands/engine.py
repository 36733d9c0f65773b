"""Carrying out what is due, at the start of a sync and under its lease."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from schema.tables.sync import CommandKind, CommandState, MessageState
from tasks.sync.commands import outcomes, queries
from tasks.sync.commands.appends import run_appends
from tasks.sync.commands.changes import carry_out
from tasks.sync.commands.values import Already, At, Change, Gone, Later, Place, grouped, locate
from tasks.sync.folders import StoredFolder
from tasks.sync.work import Work
from tasks.wire.imap import CommandRefused, FolderUnavailable, ImapError
from tasks.wire.net import NetError

APPENDS = frozenset({CommandKind.APPEND_SENT, CommandKind.APPEND, CommandKind.SEEK_SENT})
LOOK_AGAIN_SECONDS = 5  # for a message that the sync has to find first


def run_commands(work: Work, folders: Sequence[StoredFolder]) -> int:
    """Carry out what is due, in order, each once. Returns how many commands were tried; then the folders'
    cursors may have moved. A fault of one command waits with it; a dead session is raised."""
    tried: list[int] = []
    while not work.out_of_time:
        with work.reading() as session:
            asked = {"mailbox_id": work.route.mailbox_id, "tried": tried}
            due = session.execute(queries.DUE, asked).all()
        if not due:
            break
        with work.reading() as session:
            changes = _load(session, [row.id for row in due if row.message_id is not None])
        work.commit(partial(outcomes.count_tries, ids=[row.id for row in due]))
        tried += [row.id for row in due]
        run_appends(work, folders, [row for row in due if row.kind in APPENDS])
        _run_changes(work, folders, changes)
    return len(tried)


def _load(session: Session, ids: Sequence[int]) -> list[Change]:
    return [_change(row) for row in session.execute(queries.CHANGES, {"ids": list(ids)})] if ids else []


def _change(row: Any) -> Change:
    return Change(
        id=row.id,
        uid=row.uid,
        kind=CommandKind(row.kind),
        folder_id=row.folder_id,
        target_id=row.target_id,
        add=tuple(row.add_flags),
        remove=tuple(row.remove_flags),
        tries=row.tries,
        sent=row.sent,
        message_id=row.message_id,
        message_uid=row.message_uid,
        message_state=MessageState(row.message_state),
        name=row.name,
        size=row.size,
        digest=bytes(row.digest),
        places=tuple(Place.load(place) for place in row.places or ()),
    )


def _run_changes(work: Work, folders: Sequence[StoredFolder], changes: Sequence[Change]) -> None:
    found: list[tuple[Change, At]] = []
    for change in changes:
        match locate(change):
            case At() as at:
                found.append((change, at))
            case Already():
                work.commit(partial(outcomes.end, ids=[change.id], state=CommandState.DONE))
            case Later():
                reason = "the message is being looked for."
                work.commit(
                    partial(outcomes.untried, changes=[change], reason=reason, pause=LOOK_AGAIN_SECONDS)
                )
            case Gone(reason):
                work.commit(partial(outcomes.end, ids=[change.id], state=CommandState.VOID, reason=reason))
    groups = grouped(found)
    by_id = {folder.id: folder for folder in folders}
    while groups:
        group = groups.pop(0)
        changed = [item.change for item in group.items]
        if work.out_of_time:
            work.commit(partial(outcomes.untried, changes=changed))
            continue
        try:
            carry_out(work, by_id, group)
        except CommandRefused as error:
            if len(changed) > 1:  # which of them it was shows when each is asked for alone
                groups[:0] = group.alone()
            else:
                work.commit(partial(outcomes.fail, work=work, change=changed[0], reason=str(error)))
        except FolderUnavailable as error:
            work.commit(partial(outcomes.defer, work=work, changes=changed, reason=str(error), refused=True))
        except (ImapError, NetError) as error:
            rest = [item.change for each in groups for item in each.items]
            work.commit(partial(outcomes.broken_off, work=work, begun=changed, rest=rest, error=str(error)))
            raise
