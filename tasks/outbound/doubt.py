"""Settling doubt: what became of attempts whose last answer was lost.

    a copy with the attempt's header in Sent ──> sent     for those whom its server had not refused
    a report that names the attempt          ──> sent     likewise, but for who bounced (`outbound.reports`)
    no copy in Sent, a grace after it        ──> queued   where the provider files sent mail itself and its
                                                          policy is to send again; else a person is told
    a person's word                          ──> sent, failed, queued

Nothing else settles it. Where we write the copy in Sent ourselves, that there is none proves nothing.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from config.errors import Conflict
from schema.database import raw
from schema.tables.outbound import RecipientState, State
from schema.tables.providers import SentCopy
from tasks import access, schedule
from tasks.access import Actor
from tasks.events import NewEvent, record
from tasks.outbound import queries, wishes
from tasks.outbound.outcomes import event_of, settled
from tasks.outbound.states import move
from tasks.outbound.values import LIFETIME
from tasks.runtime import Runtime

BATCH = 500
"""Messages of one look for evidence."""

DOUBTFUL = """
    -- A message in doubt, locked, with its attempts that are; index: attempts_outbound_id_idx.
    SELECT o.id, o.uid, o.mailbox_id, m.uid AS mailbox, o.message_id, p.sent_copy, p.resend_if_absent,
           o.expires_at <= now() AS past,
           ARRAY(SELECT a.uid FROM mailwright.attempts AS a
                 WHERE a.outbound_id = o.id AND a.outcome = 'uncertain' ORDER BY a.number) AS attempts
    FROM mailwright.outbox AS o
    JOIN mailwright.mailboxes AS m ON m.id = o.mailbox_id
    JOIN mailwright.providers AS p ON p.id = m.provider_id
    WHERE o.state = 'uncertain'
"""

OF_MESSAGE = text(f"{DOUBTFUL} AND o.id = :id FOR UPDATE OF o")

OF_ATTEMPTS = text("""
    -- The messages in doubt that these attempts of a mailbox are about; index: attempts_uid_key.
    SELECT o.id, a.uid AS attempt FROM mailwright.attempts AS a
    JOIN mailwright.outbox AS o ON o.id = a.outbound_id
    WHERE a.uid = ANY(:attempts) AND a.outcome = 'uncertain'
      AND o.mailbox_id = :mailbox_id AND o.state = 'uncertain'
""")

KNOWN_COPIES = text("""
    -- Copies in Sent that were stored before the attempt was known to be in doubt. Indexes:
    -- outbox_uncertain, attempts_outbound_id_idx, messages_message_id.
    SELECT o.id, a.uid AS attempt, c.uid AS copy
    FROM mailwright.outbox AS o
    JOIN mailwright.attempts AS a ON a.outbound_id = o.id AND a.outcome = 'uncertain' AND a.evidence IS NULL
    JOIN mailwright.messages AS c ON c.mailbox_id = o.mailbox_id AND c.message_id = o.message_id
                                 AND c.outbound_uid = o.uid
    WHERE o.state = 'uncertain' AND EXISTS (
        SELECT FROM jsonb_array_elements(c.headers) AS h
        WHERE lower(h ->> 0) = 'x-mailwright-attempt' AND trim(h ->> 1) = a.uid::text
    )
    LIMIT :batch
""")

SEEK = text("""
    -- Have Sent searched, once for each attempt, where the provider files sent mail itself. Indexes:
    -- outbox_uncertain, attempts_outbound_id_idx.
    INSERT INTO mailwright.commands AS c (mailbox_id, kind, outbound_id)
    SELECT o.mailbox_id, 'seek_sent', o.id
    FROM mailwright.outbox AS o
    JOIN mailwright.mailboxes AS m ON m.id = o.mailbox_id
    JOIN mailwright.providers AS p ON p.id = m.provider_id
    WHERE o.state = 'uncertain' AND p.sent_copy = 'server' AND p.receive AND m.receive
      AND (SELECT max(a.ended_at) < now() - make_interval(secs => :grace) AND bool_or(a.evidence IS NULL)
           FROM mailwright.attempts AS a WHERE a.outbound_id = o.id AND a.outcome = 'uncertain')
    LIMIT :batch
    ON CONFLICT (kind, outbound_id) DO UPDATE
        SET state = 'queued', tries = 0, due_at = now(), sent_at = NULL, ended_at = NULL, last_error = NULL
        WHERE c.state = 'done' OR c.state = 'failed' AND c.ended_at < now() - interval '1 hour'
    RETURNING mailbox_id
""")

OF_ATTEMPT = text("SELECT told FROM mailwright.attempts WHERE uid = :attempt")

CLOSE = text("""
    UPDATE mailwright.attempts
    SET outcome = coalesce(:outcome, outcome), evidence = :evidence, settled_at = now()
    WHERE uid = ANY(:attempts)
""")

TELL_RECIPIENTS = text("""
    UPDATE mailwright.outbox_recipients SET state = :state, code = NULL, reply = :reply
    WHERE outbound_id = :id AND address = ANY(:addresses) AND state = 'uncertain'
    RETURNING address
""")

RECIPIENTS = text("SELECT address, state FROM mailwright.outbox_recipients WHERE outbound_id = :id")

BECOME = text("""
    UPDATE mailwright.outbox
    SET state = :state, last_reply = :reply, last_code = NULL,
        due_at = CASE WHEN :state = 'queued' THEN now() ELSE due_at END,
        expires_at = CASE WHEN :state = 'queued' AND expires_at <= now() THEN now() + :lifetime
                     ELSE expires_at END,
        ended_at = CASE WHEN :state IN ('sent', 'failed') THEN now() END
    WHERE id = :id
""")


class Verdict(StrEnum):
    """What a person says became of a message."""

    SENT = "sent"
    FAILED = "failed"
    RESEND = "resend"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why doubt ended. ``facts`` go into the event, ``words`` are for people."""

    kind: str
    words: str
    facts: Mapping[str, Any]


def settle(actor: Actor, session: Session, uid: UUID, verdict: Verdict, note: str = "") -> State:
    """Take a person's word for a message in doubt; returns its state. Raises `Conflict` where it is not."""
    row = wishes.found(actor, session, uid)
    doubtful = session.execute(OF_MESSAGE, {"id": row.id}).one_or_none()
    if doubtful is None:
        raise Conflict(f"the message is not in doubt: it is {row.state}.")
    said = f"settled as {verdict} by {actor.name}" + (f": {note}" if note else "")
    evidence = Evidence("person", said, {"by": actor.name, "note": note or None})
    to = {
        Verdict.SENT: RecipientState.SENT,
        Verdict.FAILED: RecipientState.FAILED,
        Verdict.RESEND: RecipientState.PENDING,
    }[verdict]
    state = _settle(session, doubtful, doubtful.attempts, _in_doubt(session, row.id), to, evidence)
    access.audit(
        session,
        actor,
        "message.settled",
        "message",
        uid,
        row.subject or "",
        {"state": (row.state, state.value)},
    )
    return state


def copies_found(session: Session, mailbox_id: int, copies: Mapping[UUID, UUID]) -> None:
    """Copies turned up in a mailbox's Sent folder: by attempt, the id of the message that is the copy."""
    if not copies:
        return
    asked = {"mailbox_id": mailbox_id, "attempts": sorted(copies)}
    for row in session.execute(OF_ATTEMPTS, asked).all():
        _found(session, row.id, row.attempt, copies[row.attempt])


def wanted(session: Session, outbound_id: int) -> tuple[str, tuple[UUID, ...]] | None:
    """What to search Sent for: a Message-ID, and the attempts whose header a copy may have. None where
    there is no doubt any more."""
    row = session.execute(text(DOUBTFUL + " AND o.id = :id"), {"id": outbound_id}).one_or_none()
    return None if row is None else (row.message_id, tuple(row.attempts))


def sought(session: Session, outbound_id: int, attempts: Collection[UUID], present: Collection[UUID]) -> None:
    """Sent was searched for ``attempts``, of which ``present`` are there."""
    if present:
        for attempt in present:
            _found(session, outbound_id, attempt, None)
        return
    row = session.execute(OF_MESSAGE, {"id": outbound_id}).one_or_none()
    if row is None or set(row.attempts) != set(attempts) or row.sent_copy != SentCopy.SERVER:
        return  # settled meanwhile, sent again, or the provider does not file sent mail any more
    words = "Sent was searched, and it is not there"
    if row.resend_if_absent:
        evidence = Evidence("absence", f"{words}: it is sent again", {})
        _settle(session, row, row.attempts, _in_doubt(session, row.id), RecipientState.PENDING, evidence)
        return
    session.execute(CLOSE, {"outcome": None, "evidence": words, "attempts": list(attempts)})
    _tell(session, row, "outbound.sought", {"found": False, "attempt": str(row.attempts[-1]), "copy": None})


def reported(session: Session, outbound_id: int, attempt: UUID | None, report: UUID, words: str) -> None:
    """A delivery report came for a message in doubt. That it names an attempt proves that this one's server
    had taken it; otherwise it tells of its own recipients alone, whose states are changed already."""
    row = session.execute(OF_MESSAGE, {"id": outbound_id}).one_or_none()
    if row is None:
        return
    accepted = _accepted(session, attempt) if attempt is not None and attempt in row.attempts else None
    if accepted is None or attempt is None:
        conclude(session, row, words)
        return
    facts = {"attempt": str(attempt), "report": str(report)}
    _settle(session, row, [attempt], accepted, RecipientState.SENT, Evidence("report", words, facts))


def look_for_evidence(runtime: Runtime) -> None:
    """Settle what the stored mail settles, and have Sent searched where that proves something."""
    with runtime.db.begin() as session:
        known = session.execute(KNOWN_COPIES, {"batch": BATCH}).all()
    for row in known:
        with runtime.db.begin() as session:
            _found(session, row.id, row.attempt, row.copy)
    with runtime.db.begin() as session:
        grace = runtime.settings.sent_search_grace_seconds
        asked = session.execute(SEEK, {"grace": grace, "batch": BATCH}).scalars().all()
        for mailbox_id in sorted(set(asked)):
            schedule.hasten(session, mailbox_id, 0)


def _found(session: Session, outbound_id: int, attempt: UUID, copy: UUID | None) -> None:
    """A copy of an attempt proves that its server took it, for those whom it had not refused."""
    row = session.execute(OF_MESSAGE, {"id": outbound_id}).one_or_none()
    if row is None or attempt not in row.attempts:
        return
    facts = {"attempt": str(attempt), "copy": str(copy) if copy else None}
    words = "a copy of this attempt is in Sent"
    accepted = _accepted(session, attempt)
    if accepted is None:
        words += ", but whom the server refused is not known"
        session.execute(CLOSE, {"outcome": None, "evidence": words, "attempts": [attempt]})
        _tell(session, row, "outbound.sought", {"found": True, **facts})
        return
    _settle(session, row, [attempt], accepted, RecipientState.SENT, Evidence("sent_copy", words, facts))


def _accepted(session: Session, attempt: UUID) -> list[str] | None:
    """Whom an attempt's server had accepted; None where the worker died before it could be stored, and
    it may have refused some."""
    told: Sequence[Mapping[str, Any]] = session.execute(OF_ATTEMPT, {"attempt": attempt}).scalar() or ()
    doubtful = [r["address"] for r in told if r["state"] == RecipientState.UNCERTAIN]
    certain = len(doubtful) == 1 or all("code" in r for r in told)
    return doubtful if certain else None


def _in_doubt(session: Session, outbound_id: int) -> list[str]:
    rows = session.execute(RECIPIENTS, {"id": outbound_id})
    return [row.address for row in rows if row.state == RecipientState.UNCERTAIN]


def _settle(
    session: Session,
    row: Row[Any],
    attempts: Sequence[UUID],
    addresses: Sequence[str],
    to: RecipientState,
    evidence: Evidence,
) -> State:
    """The one place where doubt ends: recipients, attempts, message, event, and the copy in Sent."""
    told = session.execute(
        TELL_RECIPIENTS, {"id": row.id, "state": to, "reply": evidence.words, "addresses": list(addresses)}
    ).scalars()
    changed = list(told)
    outcome = to.value if to in (RecipientState.SENT, RecipientState.FAILED) else None
    session.execute(CLOSE, {"outcome": outcome, "evidence": evidence.words, "attempts": list(attempts)})
    state = conclude(session, row, evidence.words)
    facts = {"kind": evidence.kind, **evidence.facts}
    if to is RecipientState.PENDING:
        _tell(session, row, "outbound.queued", {"was": State.UNCERTAIN.value, "evidence": facts})
    elif changed:
        recipients = [{"address": address, "code": None, "reply": evidence.words} for address in changed]
        data = {"message_id": row.message_id, "recipients": recipients, "evidence": facts}
        _tell(session, row, event_of(to), {**data, "attempt": str(attempts[-1]) if attempts else None})
    if to is RecipientState.SENT and row.sent_copy == SentCopy.APPEND and evidence.kind != "sent_copy":
        raw(session).execute(queries.ASK_SENT_COPY, {"mailbox_id": row.mailbox_id, "ids": [row.id]})
    return state


def conclude(session: Session, row: Row[Any], words: str) -> State:
    """Give a message in doubt the state that its recipients now say."""
    states = [RecipientState(each.state) for each in session.execute(RECIPIENTS, {"id": row.id})]
    state = settled(states)
    if state is not State.UNCERTAIN:
        move(State.UNCERTAIN, state)
        session.execute(BECOME, {"id": row.id, "state": state.value, "reply": words, "lifetime": LIFETIME})
    return state


def _tell(session: Session, row: Row[Any], kind: str, data: Mapping[str, Any]) -> None:
    facts = {"mailbox": str(row.mailbox), "message": str(row.uid), **data}
    record(session, [NewEvent(kind, row.mailbox_id, str(row.uid), facts, str(row.uid))])
