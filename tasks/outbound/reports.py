"""After sending: what servers report of mail that they took (RFC 3464), and who complains (RFC 5965).

A report is tied to what it is about by the attempt header in what it returns, else by its envelope id, which
is the attempt's too, else by Message-ID and recipient in the mailbox that it came to. Then

    failed ──> the recipient is bounced; a bad address is not sent to again from that mailbox
    any report that names an attempt in doubt ──> its server had taken it: sent, but for who bounced
    complaint ──> told, and not sent to again from that mailbox

What is about nothing of ours is passed over.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from schema.tables.outbound import RecipientState, State, SuppressionReason
from schema.tables.sync import ReportKind
from tasks.events import NewEvent, record
from tasks.outbound import doubt
from tasks.outbound.suppression import is_hard, suppress
from tasks.runtime import Runtime

BATCH = 200
"""Reports of one look."""
LONGEST = 1000
"""Characters kept of a diagnostic."""

NEXT = text("""
    -- One report that nobody has dealt with; index: reports_unsettled.
    SELECT r.message_id, r.mailbox_id, r.kind, r.envelope_id, r.original_message_id, r.attempt, r.recipients,
           m.uid AS report
    FROM mailwright.reports AS r JOIN mailwright.messages AS m ON m.id = r.message_id
    WHERE r.settled_at IS NULL ORDER BY r.message_id LIMIT 1 FOR UPDATE OF r SKIP LOCKED
""")

SETTLED = text("UPDATE mailwright.reports SET settled_at = now() WHERE message_id = :message_id")

BY_ATTEMPT = text("""
    -- Index: attempts_uid_key.
    SELECT a.outbound_id, a.uid AS attempt FROM mailwright.attempts AS a WHERE a.uid = :attempt
""")

BY_MESSAGE_ID = text("""
    -- Index: outbox_message_id.
    SELECT o.id AS outbound_id, cast(NULL AS uuid) AS attempt FROM mailwright.outbox AS o
    WHERE o.mailbox_id = :mailbox_id AND o.message_id = :message_id
    ORDER BY o.id DESC LIMIT 1
""")

MESSAGE = text("""
    SELECT o.id, o.uid, o.mailbox_id, m.uid AS mailbox, o.message_id, o.state
    FROM mailwright.outbox AS o JOIN mailwright.mailboxes AS m ON m.id = o.mailbox_id
    WHERE o.id = :id FOR UPDATE OF o
""")

RECIPIENTS = text("SELECT address, state FROM mailwright.outbox_recipients WHERE outbound_id = :id")

BOUNCE = text("""
    UPDATE mailwright.outbox_recipients SET state = 'bounced', code = NULL, reply = :reply
    WHERE outbound_id = :id AND address = :address AND state IN ('sent', 'uncertain')
    RETURNING address
""")


def settle_reports(runtime: Runtime) -> int:
    """Deal with reports that came, each in a transaction of its own. Returns how many there were."""
    for count in range(BATCH):
        with runtime.db.begin() as session:
            report = session.execute(NEXT).one_or_none()
            if report is None:
                return count
            session.execute(SETTLED, {"message_id": report.message_id})
            about = _about(session, report)
            if about is not None:
                _apply(session, report, about)
    return BATCH


def _about(session: Session, report: Row[Any]) -> Row[Any] | None:
    """The message and, where it is known, the attempt that a report is about."""
    for named in (report.attempt, report.envelope_id):
        attempt = _uuid(named)
        if attempt is not None:
            row = session.execute(BY_ATTEMPT, {"attempt": attempt}).one_or_none()
            if row is not None:
                return row
    if report.original_message_id is None:
        return None
    return session.execute(
        BY_MESSAGE_ID, {"mailbox_id": report.mailbox_id, "message_id": report.original_message_id}
    ).one_or_none()


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None  # the envelope id of some other sender


def _apply(session: Session, report: Row[Any], about: Row[Any]) -> None:
    message = session.execute(MESSAGE, {"id": about.outbound_id}).one()
    states = {r.address: RecipientState(r.state) for r in session.execute(RECIPIENTS, {"id": message.id})}
    named = _named(report, states)
    if report.kind == ReportKind.COMPLAINT:
        _complain(session, report, message, named)
        return
    failed = {address: told for address, told in named.items() if told["action"] == "failed"}
    bounced = {
        address: told
        for address, told in failed.items()
        if session.execute(BOUNCE, {"id": message.id, "address": address, "reply": _words(told)}).first()
    }
    if bounced:
        _tell_bounced(session, report, message, about.attempt, bounced)
    bad = {address: _words(told) for address, told in bounced.items() if is_hard(told["status"])}
    suppress(session, message.mailbox_id, message.mailbox, message.uid, SuppressionReason.BOUNCE, bad)
    if message.state == State.UNCERTAIN:
        doubt.reported(
            session, message.id, about.attempt, report.report, "a report came from behind the server"
        )


def _named(report: Row[Any], states: Mapping[str, RecipientState]) -> dict[str, Mapping[str, Any]]:
    """The reported recipients by our own writing of their addresses. Where the message had one only, that is
    who is meant, whatever an alias has made of the address."""
    by_key = {address.lower(): address for address in states}
    reported: Sequence[Mapping[str, Any]] = report.recipients
    found: dict[str, Mapping[str, Any]] = {}
    for told in reported:
        address = by_key.get((told["original"] or "").lower()) or by_key.get(told["address"].lower())
        if address is None and len(states) == 1:
            address = next(iter(states))
        if address is not None:
            found[address] = told
    if not reported and len(states) == 1 and report.kind == ReportKind.COMPLAINT:
        found[next(iter(states))] = {"action": "complaint", "status": None, "diagnostic": None}
    return found


def _words(told: Mapping[str, Any]) -> str:
    words: str = told["diagnostic"] or told["status"] or "it could not be delivered"
    return words[:LONGEST]


def _tell_bounced(
    session: Session,
    report: Row[Any],
    message: Row[Any],
    attempt: UUID | None,
    bounced: Mapping[str, Mapping[str, Any]],
) -> None:
    facts = {
        "mailbox": str(message.mailbox),
        "message": str(message.uid),
        "message_id": message.message_id,
        "attempt": str(attempt) if attempt else None,
        "recipients": [
            {"address": address, "code": None, "reply": _words(told), "status": told["status"]}
            for address, told in bounced.items()
        ],
        "report": str(report.report),
    }
    kind = "outbound.bounced"
    record(session, [NewEvent(kind, message.mailbox_id, str(message.uid), facts, str(message.uid))])


def _complain(
    session: Session, report: Row[Any], message: Row[Any], named: Mapping[str, Mapping[str, Any]]
) -> None:
    facts = {
        "mailbox": str(message.mailbox),
        "message": str(message.uid),
        "message_id": message.message_id,
        "recipients": sorted(named),
        "report": str(report.report),
    }
    kind = "outbound.complained"
    record(session, [NewEvent(kind, message.mailbox_id, str(message.uid), facts, str(message.uid))])
    details = {address: told["diagnostic"] for address, told in named.items()}
    suppress(session, message.mailbox_id, message.mailbox, message.uid, SuppressionReason.COMPLAINT, details)
