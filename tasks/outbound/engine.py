"""Putting mail into the queue, and looking at it there. Rights are met here."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, text
from sqlalchemy.orm import Session

from config.errors import NotFound, UserError
from schema.ids import uuid7
from schema.tables.access import Operation
from schema.tables.mailboxes import Mailbox, MailboxState
from schema.tables.outbound import RecipientState, State
from tasks import access, mailboxes, providers
from tasks.access import Actor
from tasks.events import NewEvent, record
from tasks.outbound import errors, templates
from tasks.outbound.compose import Sender, attempt_line, check
from tasks.outbound.states import WAITING
from tasks.outbound.values import Accepted, Order, read
from tasks.outbound.wishes import found

LONGEST_KEY = 255

_ACCEPT = text("""
    SELECT accepted, duplicate, fault FROM mailwright.accept_messages(
        :box, ARRAY(SELECT jsonb_array_elements(cast(:messages AS jsonb))), cast(:keys AS text[]), :principal
    ) ORDER BY ordinal
""")


# A mailbox by its id or its address, how it sends, and whether one may send as it, in one look, as every
# message that comes by itself needs it; indexes: mailboxes_uid_key, mailboxes_address_key_key.
_SENDING_BOX = text("""
    SELECT m.id, m.address, m.display_name, m.send_as, m.send AND p.send AS sends, p.max_recipients,
           p.max_message_size,
           :system OR mailwright.allowed(:actor, 'CanSendMessages') OR EXISTS (
               SELECT FROM mailwright.users AS u WHERE u.id = m.owner_id AND lower(u.name) = lower(:actor)
           ) AS may
    FROM mailwright.mailboxes AS m JOIN mailwright.providers AS p ON p.id = m.provider_id
    WHERE (m.uid = cast(:uid AS uuid) OR m.address_key = cast(:key AS text)) AND m.state <> 'removing'
""")


def enqueue(
    actor: Actor,
    session: Session,
    mailbox: str,
    message: Mapping[str, Any],
    idempotency_key: str | None = None,
) -> Accepted:
    """Put a message into a mailbox's queue; it is accepted once the session commits.

    ``message`` is the JSON of ``schema/messages/outbound.schema.json``, ``mailbox`` an address or the
    mailbox's id. Raises the `UserError`s of `tasks.outbound.errors` and `PermissionDenied`.
    """
    (answer,) = enqueue_many(actor, session, mailbox, [Order(message, idempotency_key)])
    if isinstance(answer, UserError):
        raise answer
    return answer


def enqueue_many(
    actor: Actor, session: Session, mailbox: str, orders: Sequence[Order]
) -> list[Accepted | UserError]:
    """The same for many: each is answered by itself, in order, and the good ones are stored.

    Keys belong to the actor. Raises what concerns the mailbox, and so all of them.
    """
    box = _sending_box(actor, session, mailbox)
    sender = Sender(
        box.address, box.display_name, tuple(box.send_as), box.max_recipients, box.max_message_size
    )
    now = datetime.now(UTC)
    answers: list[Accepted | UserError | None] = [_fault(session, order, sender, now) for order in orders]
    good = [order for order, fault in zip(orders, answers, strict=True) if fault is None]
    if not good:
        return [answer for answer in answers if answer is not None]
    rows = iter(
        session.execute(
            _ACCEPT,
            {
                "box": box.id,
                "messages": json.dumps([order.message for order in good], ensure_ascii=False),
                "keys": [order.idempotency_key for order in good],
                "principal": actor.name,
            },
        ).all()
    )
    return [_told(next(rows)) if answer is None else answer for answer in answers]


def refused(session: Session, task: str, mailbox: str, answers: Sequence[Accepted | UserError]) -> None:
    """Record an event for each refusal of what a task brought; nobody waits for a task's answer."""
    box = None
    with suppress(UserError):
        box = _mailbox(session, mailbox)
    events = [
        NewEvent(
            "outbound.refused",
            box.id if box is not None else None,
            _plain(task),
            {
                "mailbox": str(box.uid) if box is not None else None,
                "address": _plain(box.address if box is not None else mailbox),
                "task": _plain(task),
                "number": number,
                "code": answer.code,
                "reason": _plain(str(answer)),
            },
        )
        for number, answer in enumerate(answers, 1)
        if isinstance(answer, UserError)
    ]
    record(session, events)


def _plain(text: str) -> str:
    """What a stranger wrote, as an event may hold it."""
    return "".join(c if c.isprintable() else "?" for c in text[:1000])


def _fault(session: Session, order: Order, sender: Sender, now: datetime) -> UserError | None:
    """What is wrong with one order, as far as can be seen from here."""
    try:
        _check_key(order.idempotency_key)
        if not isinstance(order.message, Mapping):
            raise errors.MessageRefused(
                "the message must be a JSON object; one of many has the form "
                '{"message": {…}, "idempotency_key": "…"}.'
            )
        _refuse_nul(order.message)
        check(read(templates.filled(session, order.message)), sender, uuid7(), now)
    except RecursionError:
        return errors.MessageRefused("the message is nested too deeply.")
    except UserError as fault:
        return fault
    return None


def _check_key(key: object) -> None:
    if key is not None and not (isinstance(key, str) and 1 <= len(key) <= LONGEST_KEY and key.isprintable()):
        raise errors.KeyInvalid(f"an idempotency key has 1 to {LONGEST_KEY} printable characters.")


def _told(row: Row[Any]) -> Accepted | UserError:
    return Accepted(row.accepted, row.duplicate) if row.fault is None else errors.from_sql(row.fault)


def _sending_box(actor: Actor, session: Session, name: str) -> Row[Any]:
    """The mailbox that ``actor`` may send as. Raises `PermissionDenied`, `MailboxUnknown` or `SendingOff`."""
    purpose = f"send as {_plain(name[:320])}"
    if not access.storable(actor.name):
        access.require(session, actor, Operation.SEND_MESSAGES, purpose)
    uid, key = None, None
    try:
        uid = UUID(name)
    except ValueError:
        with suppress(UserError):
            key = providers.split_address(name).key
    given = {"uid": uid, "key": key, "actor": actor.name, "system": actor.system}
    box = session.execute(_SENDING_BOX, given).one_or_none()
    if box is None or not box.may:
        # Who may send from none is not told which there are.
        access.require(session, actor, Operation.SEND_MESSAGES, purpose)
    if box is None:
        raise errors.MailboxUnknown(
            f"there is no mailbox {_plain(name[:320])}. See `mailwright mailbox list`."
        )
    if not box.sends:
        raise errors.SendingOff(f"{box.address} does not send. Switch sending on at mailbox and provider.")
    return box


def _mailbox(session: Session, name: str) -> Mailbox:
    """A mailbox by address or id. Raises `MailboxUnknown`."""
    found = None
    with suppress(ValueError):
        found = session.execute(select(Mailbox).where(Mailbox.uid == UUID(name))).scalar_one_or_none()
    if found is None:
        try:
            found = mailboxes.find(session, name)
        except UserError as error:
            raise errors.MailboxUnknown(str(error)) from None
    if found is None or found.state == MailboxState.REMOVING:
        raise errors.MailboxUnknown(f"there is no mailbox {name[:320]}. See `mailwright mailbox list`.")
    return found


def _refuse_nul(value: object) -> None:
    """Postgres stores no U+0000 in JSON."""
    match value:
        case str() if "\0" in value:
            raise errors.MessageRefused("the message holds a NUL character, which mail cannot carry.")
        case Mapping():
            for item in value.values():
                _refuse_nul(item)
        case list() | tuple():
            for item in value:
                _refuse_nul(item)
        case _:
            pass


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the outbox. ``waits_for`` says why a lane stands still, where it does."""

    id: UUID
    mailbox: str
    state: State
    subject: str
    recipients: int
    priority: int
    attempts: int
    due_at: datetime
    created_at: datetime
    last_reply: str | None


_LIST = text("""
    SELECT o.id AS inner_id, o.uid, m.address, o.state, o.subject, o.priority, o.attempts, o.due_at,
           o.created_at, o.last_reply,
           (SELECT count(*) FROM mailwright.outbox_recipients AS r WHERE r.outbound_id = o.id) AS recipients
    FROM mailwright.outbox AS o JOIN mailwright.mailboxes AS m ON m.id = o.mailbox_id
    WHERE (cast(:mailbox AS bigint) IS NULL OR o.mailbox_id = :mailbox)
      AND (cast(:state AS text) IS NULL OR o.state = :state)
      AND (cast(:since AS timestamptz) IS NULL OR o.created_at >= :since)
      AND (cast(:key AS text) IS NULL OR o.uid IN (
          SELECT k.outbound_uid FROM mailwright.idempotency_keys AS k WHERE k.key = :key
      ))
      AND (cast(:recipient AS text) IS NULL OR EXISTS (
          SELECT FROM mailwright.outbox_recipients AS r
          WHERE r.outbound_id = o.id AND lower(r.address) = :recipient
      ) OR EXISTS (
          SELECT FROM unnest('{to,cc,bcc}'::text[]) AS field,
                      mailwright.recipient_addresses(o.request -> field) AS a
          WHERE o.request ? field AND (lower(a) = :recipient OR lower(a) LIKE '%<' || :recipient || '>')
      ))
      AND (:all OR m.owner_id = :owner)
      AND (cast(:before AS uuid) IS NULL
           OR o.id < (SELECT b.id FROM mailwright.outbox AS b WHERE b.uid = :before))
    ORDER BY o.id DESC LIMIT :limit
""")


def listing(
    actor: Actor,
    session: Session,
    *,
    mailbox: str | None = None,
    state: State | None = None,
    since: datetime | None = None,
    recipient: str | None = None,
    key: str | None = None,
    limit: int = 50,
    before: UUID | None = None,
) -> list[Listed]:
    """The newest messages of the queue: all for who may send or view operations, else those of one's
    own mailboxes. ``before``: only those that are older than this one."""
    box = _mailbox(session, mailbox) if mailbox is not None else None
    sees_all = access.allowed(session, actor, Operation.SEND_MESSAGES) or access.allowed(
        session, actor, Operation.VIEW_OPERATIONS
    )
    if not sees_all and box is not None:
        mailboxes.require_send(session, actor, box)
    rows = session.execute(
        _LIST,
        {
            "mailbox": None if box is None else box.id,
            "state": state,
            "since": since,
            "recipient": recipient.lower() if recipient is not None else None,
            "key": key,
            "all": sees_all,
            "owner": access.user_id(session, actor),
            "limit": limit,
            "before": before,
        },
    )
    return [
        Listed(
            row.uid,
            row.address,
            State(row.state),
            row.subject or "",
            row.recipients,
            row.priority,
            row.attempts,
            row.due_at,
            row.created_at,
            row.last_reply,
        )
        for row in rows
    ]


def show(actor: Actor, session: Session, uid: UUID) -> dict[str, Any]:
    """All that is known of one message, with its recipients and attempts. Raises `NotFound`."""
    row = found(actor, session, uid, viewing=True)
    recipients = session.execute(
        text("""SELECT address, kind, state, code, reply FROM mailwright.outbox_recipients
                WHERE outbound_id = :id ORDER BY ordinal"""),
        {"id": row.id},
    ).mappings()
    attempts = session.execute(
        text("""SELECT uid AS id, number, armed_at, ended_at, outcome, stage, code, reply, waited_ms,
                       dialogue, told AS recipients, evidence, settled_at
                FROM mailwright.attempts WHERE outbound_id = :id ORDER BY id"""),
        {"id": row.id},
    ).mappings()
    waiting = State(row.state) in WAITING
    return {
        "id": row.uid,
        "mailbox": row.address,
        "state": row.state,
        "subject": row.subject,
        "message_id": row.message_id,
        "from": row.envelope_from,
        "size": row.size,
        "priority": row.priority,
        "principal": row.principal,
        "created_at": row.created_at,
        "due_at": row.due_at if waiting else None,
        "expires_at": row.expires_at,
        "ended_at": row.ended_at,
        "error": row.error_code,
        "last_reply": row.last_reply,
        "waits_for": _reason(row) if waiting else None,
        "held_for": row.held_for,
        "recipients": [dict(r) for r in recipients],
        "attempts": [{**a, "dialogue": _dialogue(a["dialogue"])} for a in attempts],
    }


def _dialogue(stored: Sequence[Sequence[Any]] | None) -> list[dict[str, Any]]:
    """Each exchange of an attempt: the step, its reply's code, its milliseconds, and how often in a row."""
    names = ("step", "code", "ms", "times")
    return [dict(zip(names, exchange, strict=True)) for exchange in stored or ()]


def _reason(row: Row[Any]) -> str | None:
    if row.lane_enabled is False or row.lane_enabled is None:
        return "the mailbox or its provider is not active or does not send"
    return str(row.lane_error) if row.lane_error else None


def sent_content(session: Session, outbound_id: int) -> tuple[bytes, str]:
    """The bytes of a sent message as they went out, for the copy in Sent: with the attempt header of the
    attempt that first reached someone; and its Message-ID. Raises `NotFound`."""
    row = session.execute(
        text("""
            SELECT c.content, o.message_id, (
                SELECT a.uid FROM mailwright.attempts AS a
                WHERE a.outbound_id = o.id AND a.outcome = 'sent' ORDER BY a.number LIMIT 1
            ) AS attempt
            FROM mailwright.outbox AS o JOIN mailwright.outbox_content AS c ON c.outbound_id = o.id
            WHERE o.id = :id
        """),
        {"id": outbound_id},
    ).one_or_none()
    if row is None or row.attempt is None:
        raise NotFound("the message was removed, or never sent.")
    return attempt_line(row.attempt) + bytes(row.content), row.message_id


def undelivered(shown: Mapping[str, Any]) -> bool:
    """Whether a message, as `show` tells it, ended without reaching everyone."""
    return shown["state"] != State.SENT or any(
        recipient["state"] != RecipientState.SENT for recipient in shown["recipients"]
    )
