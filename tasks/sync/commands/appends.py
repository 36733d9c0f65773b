"""Putting messages into folders: the copy in Sent, and what people hand in; and searching Sent for one.

Each is appended once: its try is counted before it is made, and a try that follows another looks for the
Message-ID in the folder first.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from config.errors import NotFound, TransientError
from schema.tables.sync import CommandKind
from tasks import outbound
from tasks.events import NewEvent, record
from tasks.sync.commands import queries
from tasks.sync.commands.outcomes import TRIES
from tasks.sync.commands.seeking import seek
from tasks.sync.folders import StoredFolder
from tasks.sync.work import Work
from tasks.wire import mime
from tasks.wire.imap import CommandRefused, ImapError
from tasks.wire.net import NetError


class NotFiled(TransientError):
    """An append was tried too often, or has nowhere to go."""


DONE = text("""
    UPDATE mailwright.commands
    SET state = 'done', last_error = NULL, ended_at = clock_timestamp(), content = NULL
    WHERE id = ANY(:ids)
""")

DEFERRED = text("""
    UPDATE mailwright.commands SET last_error = :error,
        state = CASE WHEN tries >= :most THEN 'failed' ELSE 'queued' END,
        ended_at = CASE WHEN tries >= :most THEN clock_timestamp() END,
        due_at = now() + make_interval(secs => 30 * power(2, tries))
    WHERE id = :id RETURNING state, uid, kind, outbound_id
""")


def run_appends(work: Work, folders: Sequence[StoredFolder], due: Sequence[Any]) -> None:
    """Append each, as far as time allows; the rest comes a minute later. A dead session is raised."""
    sent: bytes | None = None
    finished: list[int] = []
    for row in due:
        if work.out_of_time:
            break
        try:
            if row.tries >= TRIES:
                raise NotFiled(f"given up after {row.tries} tries that were broken off.")
            if row.kind == CommandKind.APPEND_SENT:
                sent = sent or _sent_folder(work, folders)
                _file_copy(work, sent, row.outbound_id, again=row.tries > 0)
            elif row.kind == CommandKind.SEEK_SENT:
                seek(work, _present_sent_folder(folders), row.outbound_id)
            else:
                _append(work, folders, row.id, again=row.tries > 0)
        except (ImapError, NetError, NotFound, NotFiled) as error:
            work.commit(partial(_defer, work=work, command_id=row.id, error=str(error)))
            if not work.imap.alive:  # the others may have been filed: what was done is done
                work.commit(partial(_mark, statement=DONE, ids=finished))
                raise
        else:
            finished.append(row.id)
        work.progress()
    if finished:
        work.commit(partial(_mark, statement=DONE, ids=finished))


def _mark(session: Session, *, statement: TextClause, ids: Sequence[int]) -> None:
    session.execute(statement, {"ids": list(ids)})


def _defer(session: Session, work: Work, command_id: int, error: str) -> None:
    row = session.execute(DEFERRED, {"id": command_id, "error": error[:500], "most": TRIES}).one()
    if row.state == "failed":
        data = {
            "mailbox": str(work.route.uid),
            "command": str(row.uid),
            "kind": row.kind,
            "message": None,
            "reason": error[:500],
        }
        record(session, [NewEvent("command.failed", work.route.mailbox_id, str(row.uid), data)])


def _sent_folder(work: Work, folders: Sequence[StoredFolder]) -> bytes:
    """The name of the Sent folder, made where there is none."""
    folder = _known_sent_folder(folders)
    if folder is not None:
        return folder.wire_name
    try:
        work.imap.create(b"Sent")
    except CommandRefused:
        return _make_below_inbox(work, b"Sent")
    return b"Sent"


def _make_below_inbox(work: Work, name: bytes) -> bytes:
    """Make a folder where there is none beside INBOX, as at Courier. Raises `CommandRefused`."""
    listed = work.imap.folders()
    delimiter = next((each.delimiter for each in listed if each.name.upper() == "INBOX"), None) or "/"
    wire_name = b"INBOX" + delimiter.encode() + name
    work.imap.create(wire_name)
    return wire_name


def _known_sent_folder(folders: Sequence[StoredFolder]) -> StoredFolder | None:
    """The Sent folder by its special use, else by name."""
    for folder in folders:
        if folder.special_use == "\\Sent" and folder.selectable:
            return folder
    for folder in folders:
        if folder.name.lower() in {"sent", "inbox.sent"} and folder.selectable:
            return folder
    return None


def _present_sent_folder(folders: Sequence[StoredFolder]) -> StoredFolder:
    folder = _known_sent_folder(folders)
    if folder is None:
        raise NotFiled("there is no Sent folder to search.")
    return folder


def _file_copy(work: Work, sent: bytes, outbound_id: int, *, again: bool) -> None:
    with work.reading() as session:
        content, message_id = outbound.sent_content(session, outbound_id)
    if not (again and message_id and _is_there(work, sent, message_id)):
        work.imap.append(sent, content, ("\\Seen",), None)


def _append(work: Work, folders: Sequence[StoredFolder], command_id: int, *, again: bool) -> None:
    with work.reading() as session:
        row = session.execute(queries.APPEND, {"id": command_id}).one()
    folder = next((each for each in folders if each.id == row.target_id and each.selectable), None)
    if folder is None:
        raise NotFiled("the folder to append to is not there any more.")
    content = bytes(row.content)
    if again:
        name = mime.read(content).message_id
        if name is not None and _is_there(work, folder.wire_name, name):
            return
    work.imap.append(folder.wire_name, content, tuple(row.add_flags), None)


def _is_there(work: Work, folder: bytes, message_id: str) -> bool:
    work.imap.select(folder)
    found = work.imap.search_message_id(message_id)
    work.imap.unselect()
    return bool(found)
