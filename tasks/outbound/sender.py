"""One connection at work for a leased lane: claim, compose, arm, send, settle, ten at a time."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from config.errors import TransientError, UserError
from schema.database import DatabaseDown
from schema.ids import uuid7
from schema.tables.outbound import State
from tasks.mailboxes import Protocol, Route, login_worked
from tasks.outbound import store
from tasks.outbound.compose import Composed, Sender, attempt_line, compose
from tasks.outbound.connections import Connections
from tasks.outbound.lease import LaneLease
from tasks.outbound.outcomes import judge
from tasks.outbound.place import Place
from tasks.outbound.store import Ending, Item, Lane, Result
from tasks.outbound.values import read
from tasks.runtime import Runtime
from tasks.schedule.slots import Slots
from tasks.wire.net import Budget
from tasks.wire.smtp import Delivery, Envelope, Notify, Outcome, Reports, SmtpSession, Stage

BATCH: Final = 20
"""Messages of one claim."""
ARMED_AT_ONCE: Final = 10
MOST_BYTES_AT_ONCE: Final = 16 * 2**20
"""Bytes of messages that a group may hold in memory, unless one alone is larger."""
LEAST_LEFT: Final = 10.0
"""Seconds of the budget, or a quarter of it where that is less, without which the dot is withheld."""
SETTLE_PATIENCE: Final = 60.0
"""Seconds for which a known outcome waits for the database to come back."""


@dataclass(slots=True)
class Tally:
    """What became of the messages of a dispatch."""

    sent: int = 0
    deferred: int = 0
    failed: int = 0
    uncertain: int = 0
    ended: int = 0

    def count(self, results: Sequence[Result]) -> None:
        """Add settled attempts."""
        for result in results:
            match result.verdict.state:
                case State.SENT:
                    self.sent += 1
                case State.DEFERRED:
                    self.deferred += 1
                case State.UNCERTAIN:
                    self.uncertain += 1
                case _:
                    self.failed += 1

    def add(self, other: "Tally") -> None:
        """Add another's counts."""
        self.sent += other.sent
        self.deferred += other.deferred
        self.failed += other.failed
        self.uncertain += other.uncertain
        self.ended += other.ended


@dataclass(slots=True)
class LaneWork:
    """What the connections of one lane share."""

    runtime: Runtime
    connections: Connections
    lane: Lane
    lease: LaneLease
    route: Route
    until: float
    more: Callable[[], None]
    place: Place = field(default_factory=Place)
    down: TransientError | None = None
    not_before: datetime | None = None

    @property
    def over(self) -> bool:
        """Whether no further message should be claimed."""
        return (
            self.runtime.stopping.is_set()
            or self.lease.lost.is_set()
            or self.down is not None
            or time.monotonic() >= self.until
        )


@dataclass(slots=True)
class Sending:
    """One connection's part of a lane. `run` works until nothing is due, time is up, or the server
    cannot be reached; what it raises means that the lane must not be given back as if all were well."""

    work: LaneWork
    tally: Tally = field(default_factory=Tally)
    session: SmtpSession | None = None
    budget: Budget | None = None
    reused: bool = False

    def run(self) -> None:
        """Send what is due. Raises `LeaseLost`, `DatabaseDown`."""
        work = self.work
        while not work.over:
            items, endings, again = store.claim(work.runtime.db, work.lane, work.route, BATCH, work.place)
            if again is not None:
                work.not_before = again
            if not items and not endings:
                return
            if len(items) == BATCH:
                work.more()
            unsent: dict[int, Item] = {}
            try:
                self._end(endings)
                self._send_all(items, unsent)
            except SessionDown as error:
                work.down = error.cause
                store.give_back(work.runtime.db, work.lane, list(unsent.values()))
                return
            except TransientError:
                self._discard()
                raise
            finally:
                work.place.out_of_hand(item.id for item in items)
            store.give_back(work.runtime.db, work.lane, list(unsent.values()))

    def _end(self, endings: Sequence[Ending]) -> None:
        store.end_all(self.work.runtime.db, self.work.lane, endings)
        self.work.place.out_of_hand(ending.item.id for ending in endings)
        self.tally.ended += len(endings)

    def _compose(self, group: Sequence[Item]) -> list[Item]:
        """Make the bytes of what has none yet; what cannot be composed ends as failed."""
        work, now = self.work, datetime.now(UTC)
        sender = sender_of(work.route)
        ready: list[Item] = []
        endings: list[Ending] = []
        for item in group:
            try:
                if item.uncomposed:
                    asked = read(store.request_of(work.runtime.db, item))
                    fix(item, compose(asked, sender, item.uid, now))
            except UserError as error:
                endings.append(Ending(item, State.FAILED, error.code, str(error)))
                continue
            ready.append(item)
        self._end(endings)
        return ready

    def _send_all(self, ready: list[Item], unsent: dict[int, Item]) -> None:
        """``unsent``: what may be armed and has surely not begun its DATA, for the caller to give back."""
        over: list[Result] = []
        try:
            for group in groups(ready):
                if self.work.over:
                    break
                group = self._compose(group)
                self._connect()
                store.load(self.work.runtime.db, group)
                group = self._spare(group)
                for item in group:
                    item.attempt = uuid7()
                unsent.update((item.id, item) for item in group)
                armed = self._advance(over, group)
                over = []
                self.work.place.out_of_hand(armed)
                self._send_group([item for item in group if item.id in armed], unsent, over)
                for item in group:
                    item.content = item.composed = None
        finally:
            if over:
                self._advance(over, ())

    def _spare(self, group: Sequence[Item]) -> list[Item]:
        """Leave out who is suppressed; what is for nobody else has ended."""
        left = store.spare(self.work.runtime.db, self.work.lane, self.work.route, group)
        self.tally.ended += len(group) - len(left)
        return left

    def _send_group(self, armed: list[Item], unsent: dict[int, Item], over: list[Result]) -> None:
        for item in armed:
            self._connect()
            self.work.lease.progress()
            started = unsent.pop(item.id)
            try:
                over.append(self._attempt(item, over[-1] if over else None))
            except (DatabaseDown, SessionDown):  # the note or the connection failed, so DATA did not begin
                unsent[item.id] = started
                raise

    def _advance(self, over: Sequence[Result], group: Sequence[Item]) -> frozenset[int]:
        """Commit, waiting for a database that is away while an outcome is in hand."""
        work, deadline, pause = self.work, time.monotonic() + SETTLE_PATIENCE, 0.05
        while True:
            work.lease.yield_to_renewal()
            try:
                armed = store.advance(work.runtime.db, work.lane, work.route, over, group)
            except DatabaseDown:
                if not over or time.monotonic() > deadline:
                    raise
                group = ()  # whether they were armed is not known: they are given back
                work.lease.lost.wait(pause)
                pause = min(1.0, pause * 2)
                continue
            self.tally.count(over)
            if over:
                waited = max(result.delivery.waited for result in over)
                work.runtime.kept(Slots).waited(Protocol.SMTP, work.lane.host, waited)
            return armed

    def _connect(self) -> SmtpSession:
        """The session for the next message; `budget` counts its opening where it is a new one."""
        if self.session is not None and self.session.usable:
            return self.session
        self._discard()
        self.session = self.work.connections.held(self.work.route)
        self.reused = self.session is not None
        return self.session or self._open(Budget(self.work.route.smtp_timeout))

    def _open(self, budget: Budget) -> SmtpSession:
        work = self.work
        try:
            self.session = work.connections.open(work.route, budget)
        except TransientError as error:
            work.runtime.kept(Slots).waited(Protocol.SMTP, work.lane.host, budget.waited)
            raise SessionDown(error) from error
        self.budget, self.reused = budget, False
        if work.route.password:
            with work.runtime.db.begin() as session:
                login_worked(session, work.lane.mailbox_id, Protocol.SMTP)
        return self.session

    def _attempt(self, item: Item, last: Result | None) -> Result:
        budget = self.budget or Budget(self.work.route.smtp_timeout)
        self.budget = None
        delivery = self._send(self._connect(), item, budget, last)
        if self.reused and delivery.outcome is Outcome.DEFERRED and stale(delivery):
            self._discard()
            delivery = self._send(self._open(budget), item, budget, last)
            self.budget = None
        self.reused = self.session is not None
        verdict = judge(delivery, item.attempts + 1, item.already_sent)
        return Result(item, delivery, verdict, store.is_reply(item.content or b""))

    def _send(self, session: SmtpSession, item: Item, budget: Budget, last: Result | None) -> Delivery:
        assert item.attempt is not None
        assert item.content is not None
        attempt, work = item.attempt, self.work
        told = store.told(last) if last is not None else None
        needed = min(LEAST_LEFT, budget.seconds / 4)

        def before_dot() -> bool:
            if budget.left() < needed:
                return False
            return work.lease.lasts(min(budget.left(), work.lease.seconds / 2))

        staging = work.runtime.settings.staging_address
        recipients = item.recipients if staging is None else (staging,)
        delivery = session.send(
            Envelope(item.envelope_from, recipients, item.smtputf8, item.eight_bit, reports(attempt)),
            attempt_line(attempt) + item.content,
            budget,
            before_data=lambda: work.connections.witness.note(attempt, told),
            before_dot=before_dot,
        )
        return delivery if staging is None else redirected(delivery, item.recipients)

    def _discard(self) -> None:
        if self.session is not None:
            self.session.close()
        self.session = None
        self.budget = None


class SessionDown(TransientError):
    """The server cannot be reached; what is not sent yet goes back."""

    def __init__(self, cause: TransientError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def reports(attempt: UUID) -> Reports:
    """Servers that make delivery reports tell of failure and delay, and name the attempt."""
    return Reports(frozenset({Notify.FAILURE, Notify.DELAY}), envelope_id=str(attempt))


def redirected(delivery: Delivery, recipients: Sequence[str]) -> Delivery:
    """What became of the one recipient of staging mode, as the outcome of those it stands for."""
    (one,) = delivery.recipients
    return replace(delivery, recipients=tuple(replace(one, address=address) for address in recipients))


def stale(delivery: Delivery) -> bool:
    """Whether a held session had ended unnoticed: no transaction began, so another session may try."""
    return delivery.stage is Stage.MAIL and (delivery.reply is None or delivery.reply.code in (421, 503))


def fix(item: Item, parts: Composed) -> None:
    """Give an item the bytes that are stored with its first arming."""
    item.composed, item.request = parts, None
    item.content, item.recipients = parts.content, tuple(r.address for r in parts.recipients)
    item.envelope_from, item.message_id = parts.envelope_from, parts.message_id
    item.size, item.smtputf8, item.eight_bit = len(parts.content), parts.smtputf8, parts.eight_bit


def sender_of(route: Route) -> Sender:
    """Who the mailbox of a route may be."""
    return Sender(
        route.address, route.display_name, route.send_as, route.max_recipients, route.max_message_size
    )


def groups(items: Sequence[Item]) -> Iterator[list[Item]]:
    """At most `ARMED_AT_ONCE` together, and `MOST_BYTES_AT_ONCE` where more than one."""
    group: list[Item] = []
    size = 0
    for item in items:
        if group and (len(group) == ARMED_AT_ONCE or size + item.size > MOST_BYTES_AT_ONCE):
            yield group
            group, size = [], 0
        group.append(item)
        size += item.size
    if group:
        yield group
