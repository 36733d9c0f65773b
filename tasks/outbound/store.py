"""The commits of a lane's work. Each is one short transaction that meets the fence first."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import Row
from sqlalchemy.orm import Session

from config.errors import LeaseLost
from schema.database import Database, raw
from schema.tables.mailboxes import Mailbox
from schema.tables.outbound import RecipientState, State, SuppressionReason
from schema.tables.providers import SentCopy
from tasks import schedule
from tasks.events import NewEvent, record
from tasks.mailboxes import Route
from tasks.outbound import queries, suppression
from tasks.outbound.compose import Composed
from tasks.outbound.outcomes import Verdict, event_of
from tasks.outbound.place import Place, Position
from tasks.outbound.states import WAITING, move
from tasks.wire.smtp import Delivery

_HEADER = 32768
"""Bytes of a message in which the header is looked for, as in `queries.MARK_ANSWERED`."""
SENT_COPY_WITHIN = 2.0
"""Seconds until the mailbox is synced, which is when its copy in Sent is filed."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A leased mailbox: its fencing token, and how many connections the caps leave it. ``doubted`` and
    ``probe`` as in `tasks.schedule.Claim`."""

    mailbox_id: int
    token: int
    connections: int
    failures: int
    host: str
    doubted: bool = False
    probe: bool = False

    @property
    def key(self) -> dict[str, int]:
        """The parameters of the fence."""
        return {"mailbox_id": self.mailbox_id, "token": self.token}


@dataclass(slots=True)
class Item:
    """A claimed message on its way through a dispatch; ``content`` is None until it is loaded.
    ``suppressing``: there is a suppression list to ask; ``blocked``: recipients that are on it, each with the
    reason, whom it does not go to."""

    id: int
    uid: UUID
    state: State
    attempts: int
    created_at: datetime
    uncomposed: bool
    request: Mapping[str, Any] | None
    envelope_from: str
    message_id: str
    size: int
    smtputf8: bool
    eight_bit: bool
    content: bytes | None = field(default=None, repr=False)
    recipients: tuple[str, ...] = ()
    already_sent: bool = False
    attempt: UUID | None = None
    composed: Composed | None = field(default=None, repr=False)
    suppressing: bool = False
    blocked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """An attempt that is over and not yet committed. ``reply``: its message may answer another."""

    item: Item
    delivery: Delivery
    verdict: Verdict
    reply: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """A message that ends without an attempt."""

    item: Item
    state: State
    code: str
    reply: str


def fence(session: Session, lane: Lane) -> None:
    """Lock the lane's row as still ours. Raises `LeaseLost`."""
    if raw(session).execute(queries.FENCE, lane.key).fetchone() is None:
        raise _lost()


def _lost() -> LeaseLost:
    return LeaseLost("another process holds this lane now; nothing was stored.")


def claim_lane(
    db: Database, owner: str, lease_seconds: float, most: int, full: Sequence[str] = ()
) -> Lane | None:
    """Take the lane whose turn it is, of no host in ``full``, and settle what a dead lease left in it."""
    with db.begin() as session:
        session.execute(queries.CLAIM_LOCK)
        session.execute(queries.FOLD_WAKES)
        session.execute(queries.NEW_WITNESS)
        row = session.execute(
            queries.CLAIM_LANE, {"owner": owner, "lease": lease_seconds, "most": most, "full": list(full)}
        ).one_or_none()
        if row is None:
            return None
        lane = Lane(
            row.mailbox_id, row.lease_token, row.connections, row.failures, row.host, row.doubted, row.probe
        )
        if row.died:
            recover(session, lane.mailbox_id)
    return lane


def recover(session: Session, mailbox_id: int) -> None:
    """Sort what a dead lease left: armed messages whose outcome was noted are settled by it, those whose
    DATA may have begun otherwise are uncertain, all others go back to the queue."""
    found = session.execute(queries.LEFTOVERS, {"mailbox_id": mailbox_id}).all()
    _settle_noted(session, mailbox_id, [row for row in found if row.outcome is not None])
    left = [row for row in found if row.outcome is None]
    if not left:
        return
    states = [
        move(State.ARMED, State.UNCERTAIN if row.started or row.blind else State.QUEUED) for row in left
    ]
    session.execute(queries.RECOVER, {"ids": [row.id for row in left], "states": [s.value for s in states]})
    session.execute(queries.FORGET_STARTED, {"attempts": [row.attempt for row in left if row.attempt]})
    record(
        session,
        [
            NewEvent(
                "outbound.uncertain",
                mailbox_id,
                str(row.uid),
                {
                    "mailbox": _mailbox_uid(session, mailbox_id),
                    "message": str(row.uid),
                    "attempt": str(row.attempt),
                    "reason": "the worker ended before the server's answer was stored",
                },
                str(row.uid),
            )
            for row, state in zip(left, states, strict=True)
            if state is State.UNCERTAIN
        ],
    )


def _settle_noted(session: Session, mailbox_id: int, noted: Sequence[Row[Any]]) -> None:
    """Settle attempts that were over when their worker ended, as it would have done."""
    for token in {row.lease_token for row in noted}:
        rows = [row for row in noted if row.lease_token == token]
        told = [_Told(row.uid, row.message_id, row.outcome, reply=True) for row in rows]
        settled = raw(session).execute(queries.SETTLE, _settling(mailbox_id, rows[0].mailbox, token, told))
        _follow(session, mailbox_id, rows[0].mailbox, rows[0].sent_copy, told, _ids(settled))


def claim(
    db: Database, lane: Lane, route: Route, batch: int, place: Place
) -> tuple[list[Item], list[Ending], datetime | None]:
    """Look up the next messages of a lane: those to send, those that end here, and where the provider's
    messages a minute are used up, when more may go. ``place`` remembers where the last claim under this
    lease ended, and what is in hand. Raises `LeaseLost` where there is such a limit."""
    with place.turn, db.direct() as connection:
        again = None
        if route.messages_per_minute is not None:
            used = connection.execute(queries.ALLOWANCE, lane.key).fetchone()
            if used is None:
                raise _lost()
            batch = min(batch, route.messages_per_minute - used[0])
            again = used[1]
            if batch <= 0:
                return [], [], again
        rows = _next(connection, lane, batch, place)
        if route.messages_per_minute is not None and rows:
            connection.execute(queries.USE_ALLOWANCE, {**lane.key, "taken": len(rows)})
        connection.commit()
        place.in_hand.update(row.id for row in rows)
    items: list[Item] = []
    endings: list[Ending] = []
    for row in rows:
        item = Item(
            id=row.id,
            uid=row.uid,
            state=State(row.state),
            attempts=row.attempts,
            created_at=row.created_at,
            uncomposed=row.uncomposed,
            request=row.request,
            envelope_from=row.envelope_from or "",
            message_id=row.message_id or "",
            size=row.size or 0,
            smtputf8=row.smtputf8,
            eight_bit=row.eight_bit,
            suppressing=row.suppressing,
        )
        if row.cancel_asked:
            endings.append(Ending(item, State.CANCELLED, "cancelled", "cancelled on request"))
        elif row.expired:
            endings.append(Ending(item, State.EXPIRED, "expired", "not sent before its expires_at"))
        else:
            items.append(item)
    return items, endings, None


def _next(connection: psycopg.Connection[Any], lane: Lane, batch: int, place: Place) -> list[Any]:
    """The next rows in the order of the queue; from its head where nothing is left behind ``place``."""
    cursor: psycopg.Cursor[Any] = connection.cursor(row_factory=namedtuple_row)
    after = place.after()
    asked = {"mailbox_id": lane.mailbox_id, "batch": batch, "in_hand": list(place.in_hand)}
    rows: list[Any] = []
    if after is not None:
        rows = cursor.execute(queries.CLAIM_BEHIND, {**asked, **asdict(after)}, prepare=True).fetchall()
    head_since = None
    if not rows:
        head_since = place.clock()
        rows = cursor.execute(queries.CLAIM, asked, prepare=True).fetchall()
    last = Position(rows[-1].priority, rows[-1].due_at, rows[-1].id) if rows else None
    place.claimed(last, full=len(rows) == batch, head_since=head_since)
    return rows


def request_of(db: Database, item: Item) -> Mapping[str, Any]:
    """The request of a message too large to come with the claim."""
    if item.request is not None:
        return item.request
    with db.begin() as session:
        found: Mapping[str, Any] = session.execute(queries.REQUEST, {"id": item.id}).scalar_one()
    return found


def end_all(db: Database, lane: Lane, endings: Sequence[Ending]) -> None:
    """End messages that are not sent. Raises `LeaseLost`."""
    if endings:
        with db.begin() as session:
            fence(session, lane)
            end(session, lane.mailbox_id, endings)


def end(session: Session, mailbox_id: int, endings: Sequence[Ending]) -> None:
    """End messages without an attempt, each with its event."""
    for state in {ending.state for ending in endings}:
        of_state = {
            ending.item.id: ending for ending in endings if move(ending.item.state, ending.state) is state
        }
        ended = session.execute(
            queries.END,
            {
                "ids": list(of_state),
                "states": [state.value] * len(of_state),
                "codes": [ending.code for ending in of_state.values()],
                "replies": [ending.reply for ending in of_state.values()],
                "sources": sorted(WAITING),
            },
        ).scalars()
        record(
            session,
            [
                NewEvent(
                    f"outbound.{state.value}",
                    mailbox_id,
                    str(of_state[id].item.uid),
                    {
                        "mailbox": _mailbox_uid(session, mailbox_id),
                        "message": str(of_state[id].item.uid),
                        "code": of_state[id].code,
                        "reason": of_state[id].reply,
                    },
                    str(of_state[id].item.uid),
                )
                for id in ended
            ],
        )


def load(db: Database, items: Sequence[Item]) -> None:
    """Read the bytes and open recipients of messages composed earlier."""
    missing = {item.id: item for item in items if item.content is None}
    if not missing:
        return
    with db.begin() as session:
        for row in session.execute(queries.CONTENT, {"ids": list(missing)}):
            item = missing[row.outbound_id]
            item.content = bytes(row.content)
            item.recipients = tuple(row.recipients or ())
            item.already_sent = row.already_sent


def spare(db: Database, lane: Lane, route: Route, group: Sequence[Item]) -> list[Item]:
    """Take out of ``group`` the recipients that are suppressed, and the messages left with none, which end
    here. Raises `LeaseLost`."""
    if not any(item.suppressing for item in group):
        return list(group)
    with db.begin() as session:
        everyone = {address for item in group for address in item.recipients}
        found = suppression.hits(session, lane.mailbox_id, everyone)
    for item in group if found else ():
        item.blocked = {address: found[address] for address in item.recipients if address in found}
        item.recipients = tuple(address for address in item.recipients if address not in found)
    over = [item for item in group if item.blocked and not item.recipients]
    if over:
        with db.begin() as session:
            fence(session, lane)
            for item in over:
                _end_blocked(session, lane, route, item)
    return [item for item in group if item not in over]


def _end_blocked(session: Session, lane: Lane, route: Route, item: Item) -> None:
    """End a message of which nobody is left: it was sent if anyone got it before."""
    state = move(item.state, State.SENT if item.already_sent else State.FAILED)
    said = suppression.sentence(item.blocked)
    given = {
        "ids": [item.id],
        "states": [state.value],
        "codes": [None if item.already_sent else suppression.CODE],
        "replies": [said],
        "sources": sorted(WAITING),
    }
    if session.execute(queries.END, given).first() is not None:
        raw(session).execute(queries.BLOCK, _blocking([item]))
        record(session, [_blocked_event(lane, route.uid, item)])


def _blocking(items: Sequence[Item]) -> dict[str, Any]:
    rows = [{"id": i.id, "address": a, "reply": why} for i in items for a, why in i.blocked.items()]
    return {"blocked": json.dumps(rows)}


def _blocked_event(lane: Lane, mailbox: UUID, item: Item) -> NewEvent:
    data = {
        "mailbox": str(mailbox),
        "message": str(item.uid),
        "message_id": item.message_id or None,
        "attempt": None,
        "code": suppression.CODE,
        "reason": suppression.sentence(item.blocked),
        "recipients": [{"address": a, "code": None, "reply": why} for a, why in item.blocked.items()],
    }
    return NewEvent("outbound.failed", lane.mailbox_id, str(item.uid), data, str(item.uid))


def advance(
    db: Database, lane: Lane, route: Route, over: Sequence[Result], group: Sequence[Item]
) -> frozenset[int]:
    """One commit: the outcomes of the last group with their events, and the next group armed, its bytes
    stored where they are new.

    Returns the ids that are armed; a message that someone cancelled, held or put off meanwhile is not. Raises
    `LeaseLost`.
    """
    told = [_Told(r.item.uid, r.item.message_id, outcome(r), r.reply) for r in over]
    blocked = [item for item in group if item.blocked]
    with _opened(db, more=bool(blocked) or _has_sequel(route.sent_copy, told)) as (connection, session):
        with connection.pipeline():
            fenced = connection.execute(queries.FENCE, lane.key, prepare=True)
            settled = armed = None
            if told:
                settling = _settling(lane.mailbox_id, route.uid, lane.token, told)
                settled = connection.execute(queries.SETTLE, settling, prepare=True)
            if group:
                armed = connection.execute(queries.ARM, _arming(lane, group), prepare=True)
            if blocked:
                connection.execute(queries.BLOCK, _blocking(blocked))
        if fenced.fetchone() is None:
            raise _lost()
        ids = _ids(armed)
        if session is not None:
            _follow(session, lane.mailbox_id, route.uid, route.sent_copy, told, _ids(settled))
            record(session, [_blocked_event(lane, route.uid, item) for item in blocked if item.id in ids])
        return ids


@contextmanager
def _opened(db: Database, *, more: bool) -> Iterator[tuple[psycopg.Connection[Any], Session | None]]:
    """One transaction on the driver's connection; with a session over it where ``more`` is to be done."""
    if more:
        with db.begin() as session:
            yield raw(session), session
    else:
        with db.direct() as connection:
            yield connection, None
            connection.commit()


def _ids(cursor: psycopg.Cursor[Any] | None) -> frozenset[int]:
    return frozenset() if cursor is None else frozenset(row[0] for row in cursor.fetchall())


def _arming(lane: Lane, group: Sequence[Item]) -> dict[str, Any]:
    rows = [
        {
            "id": item.id,
            "attempt": str(item.attempt),
            "envelope_from": item.envelope_from,
            "message_id": item.message_id,
            "subject": item.composed.subject if item.composed else None,
            "size": item.size,
            "smtputf8": item.smtputf8,
            "eight_bit": item.eight_bit,
        }
        for item in group
    ]
    new = [(item.id, item.composed) for item in group if item.composed is not None]
    named = [(id, ordinal, r) for id, parts in new for ordinal, r in enumerate(parts.recipients)]
    return {
        "group": json.dumps(rows),
        "token": lane.token,
        "new": [id for id, _ in new],
        "contents": [parts.content for _, parts in new],
        "of": [id for id, _, _ in named],
        "ordinals": [ordinal for _, ordinal, _ in named],
        "addresses": [r.address for _, _, r in named],
        "kinds": [r.kind for _, _, r in named],
    }


def outcome(result: Result) -> dict[str, Any]:
    """What an attempt came to, as it is noted and settled."""
    return {
        "id": result.item.id,
        "attempt": str(result.item.attempt),
        "state": move(State.ARMED, result.verdict.state),
        "pause": result.verdict.pause,
        "code": result.verdict.code,
        "reply": result.verdict.reply,
        "outcome": result.delivery.outcome,
        "stage": result.delivery.stage,
        "waited": round(result.delivery.waited * 1000),
        "dialogue": [[e.step, e.code, e.ms, e.times] for e in result.delivery.dialogue],
        "all_sent": all(r.state is RecipientState.SENT for r in result.verdict.recipients),
        "told": [
            {"address": r.address, "state": r.state, "code": r.code, "reply": r.reply}
            for r in result.verdict.recipients
        ],
    }


def _mailbox_uid(session: Session, mailbox_id: int) -> str:
    return str(session.get_one(Mailbox, mailbox_id).uid)


def told(result: Result) -> tuple[UUID, str]:
    """An attempt and its outcome in JSON, for the `Witness`."""
    assert result.item.attempt is not None
    return result.item.attempt, json.dumps(outcome(result))


@dataclass(frozen=True, slots=True)
class _Told:
    """What the events of an attempt are made of; ``outcome`` as `outcome` gives it. ``reply``: it may answer
    a message."""

    uid: UUID
    message_id: str
    outcome: Mapping[str, Any]
    reply: bool


def is_reply(content: bytes) -> bool:
    """Whether a message's header has In-Reply-To."""
    head = content[:_HEADER].partition(b"\r\n\r\n")[0]
    return b"\nin-reply-to:" in b"\n" + head.lower()


def _settling(mailbox_id: int, mailbox: UUID, token: int, told: Sequence[_Told]) -> dict[str, Any]:
    events = [event for each in told for event in _events(mailbox, each)]
    return {
        "over": json.dumps([each.outcome for each in told]),
        "attempts": [each.outcome["attempt"] for each in told],
        "token": token,
        "mailbox_id": mailbox_id,
        "events": json.dumps([{"n": n, **event} for n, event in enumerate(events)]),
    }


def _events(mailbox: UUID, told: _Told) -> Iterator[dict[str, Any]]:
    """One event for each outcome that any recipient had in this attempt. ``waits``: the time of the next try
    is to be added."""
    attempt, recipients = told.outcome["attempt"], told.outcome["told"]
    for state in RecipientState:
        found = [
            {name: r[name] for name in ("address", "code", "reply")}
            for r in recipients
            if r["state"] == state
        ]
        if found:
            yield {
                "id": told.outcome["id"],
                "type": event_of(state),
                "subject": str(told.uid),
                "data": {
                    "mailbox": str(mailbox),
                    "message": str(told.uid),
                    "message_id": told.message_id,
                    "attempt": attempt,
                    "recipients": found,
                },
                "waits": state is RecipientState.DEFERRED and told.outcome["state"] == State.DEFERRED,
            }


def _has_sequel(sent_copy: str, told: Sequence[_Told]) -> bool:
    """Whether `_follow` has anything to do for any of them."""
    filed = sent_copy == SentCopy.APPEND
    unfiled_reply = sent_copy == SentCopy.NONE
    return any(_bad(each) or (_reached(each) and (filed or (unfiled_reply and each.reply))) for each in told)


def _reached(told: _Told) -> bool:
    return any(r["state"] == RecipientState.SENT for r in told.outcome["told"])


def _bad(told: _Told) -> dict[str, str | None]:
    """Recipients whose address itself was refused, with the words."""
    return {
        r["address"]: r["reply"]
        for r in told.outcome["told"]
        if r["state"] == RecipientState.FAILED and suppression.is_hard(suppression.status_in(r["reply"]))
    }


def _follow(
    session: Session,
    mailbox_id: int,
    mailbox: UUID,
    sent_copy: str,
    told: Sequence[_Told],
    settled: frozenset[int],
) -> None:
    """The wish for a copy in Sent, or else that what was answered be marked so, and the suppression of
    addresses that are none, for what this commit ``settled``."""
    now = [each for each in told if each.outcome["id"] in settled]
    if got := [each.outcome["id"] for each in now if _reached(each)]:
        asked = {"mailbox_id": mailbox_id, "ids": got}
        if sent_copy == SentCopy.APPEND:
            raw(session).execute(queries.ASK_SENT_COPY, asked)
            schedule.hasten(session, mailbox_id, SENT_COPY_WITHIN)
        elif sent_copy == SentCopy.NONE and raw(session).execute(queries.MARK_ANSWERED, asked).rowcount:
            schedule.hasten(session, mailbox_id, SENT_COPY_WITHIN)
    for each in now:
        if bad := _bad(each):
            suppression.suppress(session, mailbox_id, mailbox, each.uid, SuppressionReason.BOUNCE, bad)


def give_back(db: Database, lane: Lane, items: Sequence[Item]) -> None:
    """Return armed messages whose DATA surely never began. Raises `LeaseLost`."""
    if not items:
        return
    with db.begin() as session:
        fence(session, lane)
        session.execute(queries.GIVE_BACK, {"ids": [item.id for item in items], "token": lane.token})


def release(
    db: Database,
    lane: Lane,
    *,
    resting: int = 0,
    rest: float = 0.0,
    error: str | None = None,
    pause: float = 0.0,
    not_before: datetime | None = None,
    blameless: bool = False,
) -> None:
    """Give the lane back. A lane taken over meanwhile is left alone. ``blameless``: the ``error`` is the
    host's, and does not count as the lane's failure."""
    with db.begin() as session:
        session.execute(queries.HOLD_LANE, lane.key)
        session.execute(
            queries.RELEASE,
            {
                **lane.key,
                "resting": resting,
                "rest": rest,
                "error": error,
                "pause": pause,
                "not_before": not_before,
                "blameless": blameless,
            },
        )
