"""
The life of an outgoing message; each move stands in one table.

    queued ──claim──> claimed ──arm──> armed ──250──────────────> sent
     ^ ^ ^               │               ├──4yz, no DATA──> deferred ──due, claim──> claimed
     │ │ └──given back───┤               ├──5yz──> failed
     │ └──lease died, nothing started────┤
     │                   │               └──no final reply──> uncertain ──evidence──> sent, failed
     │                   └──expired, cancelled, not composable──> expired, cancelled, failed
     └──a person: retry── failed, expired, cancelled, uncertain (--may-duplicate), deferred
"""

from collections.abc import Mapping
from typing import Final

from config.errors import InternalError
from schema.tables.outbound import State

MOVES: Final[Mapping[State, frozenset[State]]] = {
    State.QUEUED: frozenset({State.CLAIMED, State.CANCELLED, State.EXPIRED}),
    State.CLAIMED: frozenset({State.ARMED, State.QUEUED, State.CANCELLED, State.EXPIRED, State.FAILED}),
    State.ARMED: frozenset({State.SENT, State.DEFERRED, State.FAILED, State.UNCERTAIN, State.QUEUED}),
    State.DEFERRED: frozenset({State.CLAIMED, State.QUEUED, State.CANCELLED, State.EXPIRED}),
    State.UNCERTAIN: frozenset({State.SENT, State.FAILED, State.QUEUED}),
    State.FAILED: frozenset({State.QUEUED}),
    State.EXPIRED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
    State.SENT: frozenset(),
}

FINAL: Final = frozenset({State.SENT, State.FAILED, State.EXPIRED, State.CANCELLED})
"""States that nothing leaves but a person's wish."""

WAITING: Final = frozenset({State.QUEUED, State.DEFERRED})
"""States that a claim takes from."""


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
