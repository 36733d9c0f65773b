"""
The life of an outgoing message; each move stands in one table.

    queued ──due, arm──> armed ──250──────────────────────> sent
     ^ ^ ^                 ├──4yz, no DATA──> deferred ──due, arm──> armed
     │ │ └──nothing started┤
     │ │                   ├──5yz──> failed
     │ │                   └──no final reply──> uncertain ──evidence──> sent, failed, queued
     │ │  queued, deferred ──expired, cancelled, not to be sent──> expired, cancelled, failed, sent
     │ └──release── held <──hold── queued, deferred
     └──a person: retry── failed, expired, cancelled, uncertain (--may-duplicate), deferred

And of each of its recipients:

    pending ──> sent ──a bounce──> bounced
       │ ^       ^ └── uncertain, deferred
       │ └──retry── deferred, failed, uncertain
       └──> deferred, failed, uncertain

The database refuses every other move: `guard` writes its triggers from these tables, into
``schema/functions/moves.sql``.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar

from config.errors import InternalError
from schema.tables.outbound import RecipientState, State

S = TypeVar("S", bound=StrEnum)

MOVES: Final[Mapping[State, frozenset[State]]] = {
    State.QUEUED: frozenset(
        {State.ARMED, State.HELD, State.CANCELLED, State.EXPIRED, State.FAILED, State.SENT}
    ),
    State.ARMED: frozenset({State.SENT, State.DEFERRED, State.FAILED, State.UNCERTAIN, State.QUEUED}),
    State.DEFERRED: frozenset(
        {State.ARMED, State.QUEUED, State.HELD, State.CANCELLED, State.EXPIRED, State.FAILED, State.SENT}
    ),
    State.HELD: frozenset({State.QUEUED, State.CANCELLED, State.EXPIRED}),
    State.UNCERTAIN: frozenset({State.SENT, State.FAILED, State.QUEUED}),
    State.FAILED: frozenset({State.QUEUED}),
    State.EXPIRED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
    State.SENT: frozenset(),
}

RECIPIENT_MOVES: Final[Mapping[RecipientState, frozenset[RecipientState]]] = {
    RecipientState.PENDING: frozenset(
        {RecipientState.SENT, RecipientState.DEFERRED, RecipientState.FAILED, RecipientState.UNCERTAIN}
    ),
    RecipientState.DEFERRED: frozenset(
        {RecipientState.SENT, RecipientState.FAILED, RecipientState.UNCERTAIN, RecipientState.PENDING}
    ),
    RecipientState.UNCERTAIN: frozenset(
        {RecipientState.SENT, RecipientState.FAILED, RecipientState.BOUNCED, RecipientState.PENDING}
    ),
    RecipientState.FAILED: frozenset({RecipientState.PENDING}),
    RecipientState.SENT: frozenset({RecipientState.BOUNCED}),
    RecipientState.BOUNCED: frozenset(),
}

FINAL: Final = frozenset({State.SENT, State.FAILED, State.EXPIRED, State.CANCELLED})
"""States that nothing leaves but a person's wish."""

WAITING: Final = frozenset({State.QUEUED, State.DEFERRED})
"""States that a claim takes from."""

AT_REST: Final = WAITING | {State.HELD}
"""States of a message that no worker has in hand and that may still be sent."""


class IllegalMove(InternalError):
    """A change of state that the picture does not show."""

    code = "illegal_move"


def move(current: State, to: State) -> State:
    """Return ``to``, or raise `IllegalMove`: the only way a state changes."""
    if to not in MOVES[current]:
        raise IllegalMove(f"an outgoing message cannot go from {current} to {to}.")
    return to


def sources(to: State) -> list[str]:
    """The states from which ``to`` is reached, for the WHERE of an UPDATE."""
    return sorted(state.value for state, targets in MOVES.items() if to in targets)


def guard() -> str:
    """The SQL by which the database refuses what the tables do not show.

    The legal moves stand in the triggers' WHEN, so that no function is called for them; and AFTER the
    update, as a trigger BEFORE it would lock each row once more.
    """
    return "\n".join([
        "-- Generated from tasks/outbound/states.py by its `guard`; a test holds them equal.",
        "CREATE OR REPLACE FUNCTION mailwright.refuse_move() RETURNS trigger LANGUAGE plpgsql AS $$",
        "BEGIN",
        "    RAISE EXCEPTION 'illegal_move: % cannot go from % to %.', TG_ARGV[0], OLD.state, NEW.state",
        "        USING ERRCODE = 'MW500';",
        "END",
        "$$;",
        _trigger("outbox", "an outgoing message", MOVES),
        _trigger("outbox_recipients", "a recipient", RECIPIENT_MOVES),
        "",
    ])  # fmt: skip


def _trigger(table: str, what: str, moves: Mapping[S, frozenset[S]]) -> str:
    legal = [
        f"        WHEN '{state.value}' THEN NEW.state IN ({_list(targets)})"
        for state, targets in moves.items()
        if targets
    ]
    return "\n".join([
        f"CREATE OR REPLACE TRIGGER {table}_moves AFTER UPDATE OF state ON mailwright.{table} FOR EACH ROW",
        "    WHEN (OLD.state <> NEW.state AND NOT CASE OLD.state",
        *legal,
        "        ELSE false END)",
        f"    EXECUTE FUNCTION mailwright.refuse_move('{what}');",
    ])  # fmt: skip


def _list(states: frozenset[S]) -> str:
    return ", ".join(f"'{state}'" for state in sorted(state.value for state in states))
