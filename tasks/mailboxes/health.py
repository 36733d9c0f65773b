"""What refused and accepted logins make of a mailbox.

    active ──third refusal in a row──> needs_attention ──a login that works──> active
       │                                 │   ▲ refused: pause doubles
       └──pause──> paused ──resume, or its time──┴──> active or needs_attention

A token server that refuses the consent (OAuth 2.0) counts as three at once.
Refusals are counted for each protocol apart, as IMAP and SMTP may take different credentials.
After each one the protocol rests: 1 minute, 5 minutes, then 15 minutes doubling to a day; what
comes after that pause is one probe (the mailbox's lease sees to it), so a stale password is never hammered
and a sound one is never locked out for good. A new password or login starts afresh.
"""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import now as database_now

from schema.database import run
from schema.tables.mailboxes import Mailbox, MailboxState
from tasks.events import NewEvent, record
from tasks.mailboxes import queries, tokens
from tasks.mailboxes.lanes import refresh_lanes
from tasks.mailboxes.values import Protocol

ATTENTION_AFTER: Final = 3
"""Refusals in a row that make a mailbox need attention."""
_EARLY: Final = (timedelta(minutes=1), timedelta(minutes=5))
_FIRST: Final = timedelta(minutes=15)
_LONGEST: Final = timedelta(hours=24)

_NEWS: Final = {
    protocol: text(f"""
        -- Whether a login that worked is news: the first, the first since a refusal, or since a token was
        -- refused before its time.
        SELECT m.id FROM mailwright.mailboxes AS m
        LEFT JOIN mailwright.mailbox_tokens AS t ON t.mailbox_id = m.id
        WHERE m.id = :mailbox_id
          AND (m.connected_at IS NULL OR m.{protocol.value}_refusals > 0 OR t.doubted <> '{{}}')
    """)  # noqa: S608  the name is ours
    for protocol in Protocol
}


def pause_after(refusals: int, draw: float = 0.0) -> timedelta:
    """How long a protocol rests after ``refusals`` in a row (≥ 1); ``draw`` (0 to 1) adds up to a tenth."""
    if refusals <= len(_EARLY):
        full = _EARLY[refusals - 1]
    else:
        full = min(_LONGEST, _FIRST * 2 ** min(refusals - ATTENTION_AFTER, 10))
    return full * (1 + 0.1 * draw)


def login_refused(session: Session, mailbox_id: int, protocol: Protocol, words: str) -> None:
    """Count a refusal of the credentials; ``words`` are the server's, cleaned.

    The protocol is not due again before its pause is over. At the third refusal in a row the
    mailbox needs attention and one event says so. An access token refused before its time is refreshed
    once before that counts.
    """
    mailbox = _locked(session, mailbox_id)
    if mailbox is None or tokens.doubt(session, mailbox_id, protocol):
        return
    attention = needs_attention(mailbox)
    until = _rest(session, mailbox, protocol, least=1)
    if not attention and needs_attention(mailbox):
        what = f"{protocol.upper()} refused the credentials {ATTENTION_AFTER} times in a row"
        _complain(session, mailbox, protocol, what, words, until)


def grant_refused(session: Session, mailbox_id: int, protocols: Sequence[Protocol], words: str) -> None:
    """The token server refused the consent that ``protocols`` live by, so that no login can work: the
    mailbox needs attention at once, and one event says so. A probe follows after each pause."""
    mailbox = _locked(session, mailbox_id)
    if mailbox is None or not protocols:
        return
    attention = needs_attention(mailbox)
    until = min(_rest(session, mailbox, protocol, least=ATTENTION_AFTER) for protocol in protocols)
    if not attention:
        what = "the consent to log in by OAuth 2.0 is refused"
        _complain(session, mailbox, protocols[0], what, words, until)


def _rest(session: Session, mailbox: Mailbox, protocol: Protocol, least: int) -> datetime:
    """Count a refusal, as at least the ``least``-th in a row, and let the protocol rest; until when."""
    now = session.execute(select(database_now())).scalar_one()
    match protocol:
        case Protocol.IMAP:
            mailbox.imap_refusals = max(least, mailbox.imap_refusals + 1)
            until: datetime = now + pause_after(mailbox.imap_refusals, random.random())
            mailbox.imap_retry_at = until
            wait = queries.WAIT_IMAP
        case Protocol.SMTP:
            mailbox.smtp_refusals = max(least, mailbox.smtp_refusals + 1)
            until = now + pause_after(mailbox.smtp_refusals, random.random())
            mailbox.smtp_retry_at = until
            wait = queries.WAIT_SMTP
    session.execute(wait, {"mailbox_id": mailbox.id, "until": until})
    return until


def _complain(
    session: Session, mailbox: Mailbox, protocol: Protocol, what: str, words: str, until: datetime
) -> None:
    """The mailbox needs attention from now on: its state, and the one event."""
    reason = f"{what}: {words[:300]}" if words else what
    if mailbox.state == MailboxState.ACTIVE:
        mailbox.state, mailbox.state_reason = MailboxState.NEEDS_ATTENTION, reason
    facts = _facts(mailbox) | {"protocol": protocol.value, "reason": reason}
    facts["next_try_at"] = until.isoformat()
    record(session, [NewEvent("mailbox.needs_attention", mailbox.id, str(mailbox.uid), facts)])


def login_worked(session: Session, mailbox_id: int, protocol: Protocol) -> None:
    """Forget refusals of ``protocol``. The first login ever is the event ``mailbox.connected``, one
    that ends needs-attention ``mailbox.recovered``. Writes nothing where nothing changed."""
    news = run(session, _NEWS[protocol], {"mailbox_id": mailbox_id})
    mailbox = _locked(session, mailbox_id) if news else None
    if mailbox is None:
        return
    tokens.trust(session, mailbox_id, protocol)
    attention = needs_attention(mailbox)
    match protocol:
        case Protocol.IMAP:
            mailbox.imap_refusals, mailbox.imap_retry_at = 0, None
        case Protocol.SMTP:
            mailbox.smtp_refusals, mailbox.smtp_retry_at = 0, None
    facts = {"mailbox": str(mailbox.uid), "address": mailbox.address, "protocol": protocol.value}
    events = []
    if mailbox.connected_at is None:
        mailbox.connected_at = session.execute(select(database_now())).scalar_one()
        events.append(NewEvent("mailbox.connected", mailbox_id, str(mailbox.uid), facts))
    if attention and not needs_attention(mailbox):
        if mailbox.state == MailboxState.NEEDS_ATTENTION:
            mailbox.state, mailbox.state_reason = MailboxState.ACTIVE, None
        events.append(NewEvent("mailbox.recovered", mailbox_id, str(mailbox.uid), facts))
    record(session, events)


def needs_attention(mailbox: Mailbox) -> bool:
    """Whether either protocol refused the credentials too often."""
    return max(mailbox.imap_refusals, mailbox.smtp_refusals) >= ATTENTION_AFTER


def wake_state(mailbox: Mailbox) -> None:
    """Give an awakened mailbox the state that its refusals say."""
    mailbox.state = MailboxState.NEEDS_ATTENTION if needs_attention(mailbox) else MailboxState.ACTIVE
    mailbox.state_reason = "the server refused the credentials" if needs_attention(mailbox) else None
    mailbox.paused_until = None


def resume_due(session: Session, limit: int = 500) -> int:
    """Wake up to ``limit`` mailboxes whose pause is over, for housekeeping. Returns how many."""
    due = session.scalars(
        select(Mailbox)
        .where(Mailbox.state == MailboxState.PAUSED, Mailbox.paused_until <= database_now())
        .order_by(Mailbox.paused_until)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for mailbox in due:
        wake_state(mailbox)
        refresh_lanes(session, mailbox.id)
        record(session, [NewEvent("mailbox.resumed", mailbox.id, str(mailbox.uid), _facts(mailbox))])
    return len(due)


def forget_refusals(session: Session, mailbox: Mailbox) -> None:
    """Start afresh after new credentials: no refusal counts, both protocols are due at once."""
    mailbox.imap_refusals = mailbox.smtp_refusals = 0
    mailbox.imap_retry_at = mailbox.smtp_retry_at = None
    if mailbox.state == MailboxState.NEEDS_ATTENTION:
        mailbox.state, mailbox.state_reason = MailboxState.ACTIVE, None
    session.flush()


def probe_now(session: Session, mailbox: Mailbox) -> None:
    """Let the next login happen at once, keeping the count of refusals."""
    mailbox.imap_retry_at = mailbox.smtp_retry_at = None
    session.execute(
        update(Mailbox).where(Mailbox.id == mailbox.id).values(imap_retry_at=None, smtp_retry_at=None)
    )
    tokens.try_now(session, mailbox.id)
    session.execute(queries.WAKE, {"mailbox_id": mailbox.id})


def _locked(session: Session, mailbox_id: int) -> Mailbox | None:
    return session.execute(
        select(Mailbox)
        .where(Mailbox.id == mailbox_id, Mailbox.state != MailboxState.REMOVING)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).scalar_one_or_none()


def _facts(mailbox: Mailbox) -> dict[str, str]:
    return {"mailbox": str(mailbox.uid), "address": mailbox.address}
