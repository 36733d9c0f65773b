"""Letting one mailbox's sending rest, until a time or until it is resumed; it goes on receiving.

(A whole provider's sending rests by ``mailwright provider pause --sending``.) What is on the wire is
finished; from the commit of the pause on nothing more is claimed. A pause that is over ends by itself.
"""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from config.errors import Conflict, UserError
from schema.tables.mailboxes import Mailbox
from tasks import access, mailboxes
from tasks.access import Actor
from tasks.events import NewEvent, record

PAUSE = text("""
    UPDATE mailwright.outbox_lanes SET paused_at = now(), paused_until = :until, paused_for = :why
    WHERE mailbox_id = :mailbox_id RETURNING 1
""")

RESUME = text("""
    UPDATE mailwright.outbox_lanes SET paused_at = NULL, paused_until = NULL, paused_for = NULL
    WHERE mailbox_id = :mailbox_id AND paused_at IS NOT NULL RETURNING paused_until
""")

PAST = text("SELECT cast(:until AS timestamptz) <= now()")


def pause(
    actor: Actor, session: Session, address: str, *, until: datetime | None = None, reason: str | None = None
) -> None:
    """Send nothing from a mailbox for a while. Raises `PermissionDenied`, and `Conflict` where it does not
    send anyway."""
    box = _mailbox(actor, session, address)
    if until is not None and session.execute(PAST, {"until": until}).scalar_one():
        raise UserError("a pause must end in the future. Write a later time, or leave --until out.")
    given = {
        "mailbox_id": box.id,
        "until": until,
        "why": f"{actor.name}: {reason}" if reason else actor.name,
    }
    if session.execute(PAUSE, given).first() is None:
        raise Conflict(f"{address} does not send, so there is nothing to pause.")
    ends = until.isoformat() if until else None
    changes = {"until": (None, ends), "reason": (None, reason)}
    access.audit(session, actor, "mailbox.sending_paused", "mailbox", box.uid, box.address, changes)
    _tell(session, box, "mailbox.sending_paused", {"until": ends, "reason": reason, "by": actor.name})


def resume(actor: Actor, session: Session, address: str) -> None:
    """Let a mailbox send again. Raises `Conflict` where its sending is not paused."""
    box = _mailbox(actor, session, address)
    if session.execute(RESUME, {"mailbox_id": box.id}).first() is None:
        raise Conflict(
            f"the sending of {address} is not paused by itself. See: mailwright mailbox show {address}"
        )
    access.audit(session, actor, "mailbox.sending_resumed", "mailbox", box.uid, box.address)
    _tell(session, box, "mailbox.sending_resumed", {"by": actor.name})


def _mailbox(actor: Actor, session: Session, address: str) -> Mailbox:
    box = mailboxes.get(session, address)
    mailboxes.require_change(session, actor, box)
    return box


def _tell(session: Session, box: Mailbox, kind: str, data: dict[str, str | None]) -> None:
    facts = {"mailbox": str(box.uid), "address": box.address, **data}
    record(session, [NewEvent(kind, box.id, str(box.uid), facts)])
