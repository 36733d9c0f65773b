"""Addresses that are not sent to any more: fed by hard bounces and complaints, edited by people.

An entry holds for the mailbox that got the bounce, so that a report which somebody made up silences an
address for one sender at most; people may make entries for all mailboxes.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from config.errors import Conflict, NotFound
from schema.tables.access import Operation
from schema.tables.outbound import SuppressionReason
from tasks import access, mailboxes
from tasks.access import Actor
from tasks.events import NewEvent, record
from tasks.outbound.addresses import parse

CODE: Final = "recipient_suppressed"
"""The error code of a recipient that is on the list."""
_BAD_ADDRESS: Final = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
"""Statuses that say that the address itself is no good (RFC 3463 §3.2, §3.3; RFC 7505); a full mailbox, a
refused sender or a suspicion of spam is none of them."""
_STATUS: Final = re.compile(r"\b5\.\d{1,3}\.\d{1,3}\b")
MOST: Final = 10_000

HITS = text("""
    -- Which of these addresses a mailbox does not send to; index: suppressions_address_key.
    SELECT address, min(reason || coalesce(': ' || detail, '')) AS why FROM mailwright.suppressions
    WHERE address = ANY(:addresses) AND (mailbox_id IS NULL OR mailbox_id = :mailbox_id)
    GROUP BY address
""")

ADD = text("""
    INSERT INTO mailwright.suppressions (address, mailbox_id, reason, detail, outbound_uid, created_by)
    VALUES (:address, :mailbox_id, :reason, :detail, :outbound_uid, :by)
    ON CONFLICT (address, mailbox_id) DO NOTHING RETURNING uid
""")

REMOVE = text("""
    DELETE FROM mailwright.suppressions
    WHERE address = :address AND mailbox_id IS NOT DISTINCT FROM cast(:mailbox_id AS bigint)
    RETURNING uid, reason
""")

LIST = text("""
    SELECT s.address, m.address AS mailbox, s.reason, s.detail, s.outbound_uid, s.created_by, s.created_at
    FROM mailwright.suppressions AS s LEFT JOIN mailwright.mailboxes AS m ON m.id = s.mailbox_id
    WHERE (:all OR m.owner_id = :owner)
      AND (cast(:mailbox_id AS bigint) IS NULL OR s.mailbox_id = :mailbox_id)
      AND (cast(:address AS text) IS NULL OR s.address = :address)
    ORDER BY s.id DESC LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class Suppression:
    """One entry. ``mailbox`` None holds for all; ``outbound`` is the message that bounced."""

    address: str
    mailbox: str | None
    reason: SuppressionReason
    detail: str | None
    outbound: UUID | None
    created_by: str
    created_at: datetime


def is_hard(status: str | None) -> bool:
    """Whether an enhanced status says that the address itself is no good."""
    return status in _BAD_ADDRESS


def status_in(reply: str | None) -> str | None:
    """The enhanced status at the head of a server's words such as ``550 5.1.1 nobody``."""
    found = _STATUS.match(reply[4:]) if reply else None
    return found[0] if found else None


def hits(session: Session, mailbox_id: int, addresses: Iterable[str]) -> dict[str, str]:
    """Which of ``addresses`` a mailbox does not send to, as they are written there, and why."""
    written = {address.lower(): address for address in addresses}
    rows = session.execute(HITS, {"mailbox_id": mailbox_id, "addresses": list(written)})
    return {written[row.address]: f"{CODE}: {row.why}" for row in rows}


def suppress(
    session: Session,
    mailbox_id: int,
    mailbox: UUID,
    message: UUID,
    reason: SuppressionReason,
    found: Mapping[str, str | None],
) -> None:
    """Put addresses on a mailbox's list, each with its detail, and tell. What is there already stays."""
    events = []
    for address in sorted(found):
        given = {
            "address": address.lower(),
            "mailbox_id": mailbox_id,
            "reason": reason.value,
            "detail": (found[address] or "")[:500] or None,
            "outbound_uid": message,
            "by": "system",
        }
        if session.execute(ADD, given).first() is not None:
            facts = {
                "mailbox": str(mailbox),
                "message": str(message),
                "address": address,
                "reason": reason.value,
                "detail": given["detail"],
            }
            events.append(NewEvent("outbound.suppressed", mailbox_id, str(message), facts, str(message)))
    record(session, events)


def listed(
    actor: Actor,
    session: Session,
    *,
    mailbox: str | None = None,
    address: str | None = None,
    limit: int = 100,
) -> list[Suppression]:
    """Entries, newest first: all for who may send or view operations, else those of one's own mailboxes."""
    box = mailboxes.get(session, mailbox) if mailbox is not None else None
    sees_all = _sees_all(session, actor)
    if not sees_all and box is not None:
        mailboxes.require_send(session, actor, box)
    rows = session.execute(
        LIST,
        {
            "all": sees_all,
            "owner": access.user_id(session, actor),
            "mailbox_id": None if box is None else box.id,
            "address": None if address is None else parse(address, "address").spec.lower(),
            "limit": limit,
        },
    )
    return [
        Suppression(
            row.address,
            row.mailbox,
            SuppressionReason(row.reason),
            row.detail,
            row.outbound_uid,
            row.created_by,
            row.created_at,
        )
        for row in rows
    ]


def add(
    actor: Actor, session: Session, address: str, *, mailbox: str | None = None, detail: str | None = None
) -> None:
    """Put an address on the list of a mailbox, or of all. Raises `Conflict` where it is there."""
    mailbox_id = _allowed(actor, session, mailbox, "keep mail from being sent")
    spec = parse(address, "address").spec.lower()
    given = {
        "address": spec,
        "mailbox_id": mailbox_id,
        "reason": SuppressionReason.MANUAL.value,
        "detail": detail,
        "outbound_uid": None,
        "by": actor.name,
    }
    row = session.execute(ADD, given).one_or_none()
    if row is None:
        raise Conflict(f"{spec} is on that list already. See: mailwright suppression list")
    access.audit(session, actor, "suppression.added", "suppression", row.uid, spec, {"for": (None, mailbox)})


def remove(actor: Actor, session: Session, address: str, *, mailbox: str | None = None) -> None:
    """Take an address off the list of a mailbox, or of all. Raises `NotFound`."""
    mailbox_id = _allowed(actor, session, mailbox, "let mail be sent again")
    spec = parse(address, "address").spec.lower()
    row = session.execute(REMOVE, {"address": spec, "mailbox_id": mailbox_id}).one_or_none()
    if row is None:
        which = "for all mailboxes" if mailbox is None else f"of {mailbox}"
        raise NotFound(f"{spec} is not on the list {which}. See: mailwright suppression list")
    access.audit(
        session, actor, "suppression.removed", "suppression", row.uid, spec, {"reason": (row.reason, None)}
    )


def _allowed(actor: Actor, session: Session, mailbox: str | None, purpose: str) -> int | None:
    if mailbox is None:
        access.require(session, actor, Operation.MANAGE_MAILBOXES, f"{purpose} from all mailboxes")
        return None
    box = mailboxes.get(session, mailbox)
    mailboxes.require_send(session, actor, box)
    return box.id


def _sees_all(session: Session, actor: Actor) -> bool:
    operations: Collection[Operation] = (Operation.SEND_MESSAGES, Operation.VIEW_OPERATIONS)
    return any(access.allowed(session, actor, operation) for operation in operations)


def sentence(blocked: Mapping[str, str]) -> str:
    """Why a message was not sent to anyone."""
    names: Sequence[str] = sorted(blocked)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"{', '.join(names[:3])}{more}: not sent to, see `mailwright suppression list` ({blocked[names[0]]})"
    )
