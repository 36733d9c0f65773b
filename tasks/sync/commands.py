"""What flows back to the server under the mailbox's lease: for now the copy in Sent.

A copy is appended once: each try is counted before it is made, and a try that follows another looks for
the Message-ID in the folder first.
"""

from collections.abc import Sequence
from functools import partial

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from config.errors import NotFound, TransientError
from tasks import outbound
from tasks.sync.folders import StoredFolder
from tasks.sync.work import Work
from tasks.wire.imap import ImapError
from tasks.wire.net import NetError

TRIES = 8


class NotFiled(TransientError):
    """A command was tried too often."""


DUE = text("""
    -- Commands of one mailbox that are due, oldest first; index: commands_due.
    SELECT id, kind, outbound_id, tries FROM mailwright.commands
    WHERE mailbox_id = :mailbox_id AND state = 'queued' AND due_at <= now() ORDER BY id LIMIT 100
""")

COUNT_TRIES = text("""
    -- The next try, should this one die, comes a minute later and looks before it appends.
    UPDATE mailwright.commands SET tries = tries + 1, due_at = now() + interval '1 minute'
    WHERE id = ANY(:ids)
""")

DONE = text("UPDATE mailwright.commands SET state = 'done', last_error = NULL WHERE id = ANY(:ids)")

DEFERRED = text("""
    UPDATE mailwright.commands SET last_error = :error,
        state = CASE WHEN tries >= :most THEN 'failed' ELSE 'queued' END,
        due_at = now() + make_interval(secs => 30 * power(2, tries))
    WHERE id = :id
""")


def run_commands(work: Work, folders: Sequence[StoredFolder]) -> int:
    """Carry out what is due. Returns how many were done."""
    done = 0
    while not work.out_of_time:
        with work.runtime.db.begin() as session:
            due = session.execute(DUE, {"mailbox_id": work.route.mailbox_id}).all()
        if not due:
            return done
        work.commit(partial(_mark, statement=COUNT_TRIES, ids=[row.id for row in due]))
        sent: bytes | None = None
        finished: list[int] = []
        for row in due:
            if work.out_of_time:
                break
            try:
                if row.tries >= TRIES:
                    raise NotFiled(f"given up after {row.tries} tries that were broken off.")
                sent = sent or _sent_folder(work, folders)
                _file_copy(work, sent, row.outbound_id, again=row.tries > 0)
            except (ImapError, NetError, NotFound, NotFiled) as error:
                work.commit(partial(_defer, command_id=row.id, error=str(error)))
                if not work.imap.alive:  # the others may have been filed: what was done is done
                    work.commit(partial(_mark, statement=DONE, ids=finished))
                    raise
            else:
                finished.append(row.id)
            work.progress()
        work.commit(partial(_mark, statement=DONE, ids=finished))
        done += len(finished)
        if len(finished) < len(due):
            return done
    return done


def _mark(session: Session, *, statement: TextClause, ids: Sequence[int]) -> None:
    session.execute(statement, {"ids": list(ids)})


def _defer(session: Session, command_id: int, error: str) -> None:
    session.execute(DEFERRED, {"id": command_id, "error": error[:500], "most": TRIES})


def _sent_folder(work: Work, folders: Sequence[StoredFolder]) -> bytes:
    """The Sent folder by its special use, else by name; made where there is none."""
    for folder in folders:
        if folder.special_use == "\\Sent" and folder.selectable:
            return folder.wire_name
    for folder in folders:
        if folder.name.lower() in {"sent", "inbox.sent"} and folder.selectable:
            return folder.wire_name
    work.imap.create(b"Sent")
    return b"Sent"


def _file_copy(work: Work, sent: bytes, outbound_id: int, *, again: bool) -> None:
    with work.runtime.db.begin() as session:
        content, message_id = outbound.sent_content(session, outbound_id)
    if again and message_id:
        work.imap.select(sent)
        found = work.imap.search_message_id(message_id)
        work.imap.unselect()
        if found:
            return
    work.imap.append(sent, content, ("\\Seen",), None)
