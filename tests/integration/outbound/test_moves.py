"""The database refuses every move that the state machine does not show."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from lab.world import Ports, add_mailbox, add_provider
from schema.database import Database
from schema.tables.outbound import RecipientState, State
from tasks import outbound
from tasks.access import SYSTEM
from tasks.outbound.states import MOVES, RECIPIENT_MOVES
from tasks.runtime import Runtime

ADDRESS = "anna@test.example"


@pytest.fixture
def message(runtime: Runtime) -> int:
    """A queued message, as a row of the outbox with one recipient."""
    add_mailbox(runtime, add_provider(runtime, Ports(smtp=9)), ADDRESS, "secret")
    with runtime.db.begin() as session:
        outbound.enqueue(SYSTEM, session, ADDRESS, {"to": "bob@far.example", "text": "x"})
        row: int = session.execute(text("SELECT id FROM mailwright.outbox")).scalar_one()
        session.execute(
            text("""INSERT INTO mailwright.outbox_recipients (outbound_id, ordinal, address, kind)
                    VALUES (:id, 0, 'bob@far.example', 'to')"""),
            {"id": row},
        )
    return row


def refused(db: Database, table: str, was: StrEnum, to: StrEnum) -> bool:
    """Whether the only row of ``table``, in state ``was``, may not become ``to``."""

    def at(session: Session, state: StrEnum) -> None:
        session.execute(text(f"UPDATE mailwright.{table} SET state = :state"), {"state": state.value})

    with db.begin() as session:
        session.execute(
            text("SET LOCAL session_replication_role = replica")
        )  # no triggers: any start will do
        at(session, was)
    try:
        with db.begin() as session:
            at(session, to)
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error) and error.orig.sqlstate == "MW500":
            return True
        raise
    return False


@pytest.mark.parametrize(
    ("table", "moves", "states"),
    [("outbox", MOVES, State), ("outbox_recipients", RECIPIENT_MOVES, RecipientState)],
    ids=["messages", "recipients"],
)
@pytest.mark.usefixtures("message")
def test_what_the_database_lets_pass_is_what_the_table_shows(
    db: Database, table: str, moves: Mapping[Any, frozenset[Any]], states: Callable[[], list[Any]]
) -> None:
    every = [(was, to) for was in states for to in states if was is not to]  # type: ignore[attr-defined]

    passed = {(was, to) for was, to in every if not refused(db, table, was, to)}

    assert passed == {(was, to) for was, targets in moves.items() for to in targets}
