"""The doors of the queue: who may, what is kept, what a key means."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from config.errors import PermissionDenied, UserError
from lab.http_door import Answer, HttpDoor, add_key, served
from lab.world import Ports, add_mailbox, add_provider
from tasks import outbound
from tasks.access import Actor
from tasks.outbound.tasks import enqueue_task
from tasks.runtime import Runtime, install_runtime

ADDRESS = "anna@test.example"
MAIL = {"to": ["bob@far.example"], "subject": "Hello", "text": "x"}
ADMINISTRATOR = Actor("administrator")


@pytest.fixture
def mailbox(runtime: Runtime) -> int:
    """A mailbox that sends; nobody serves its port."""
    provider = add_provider(runtime, Ports(smtp=9), max_recipients=3)
    return add_mailbox(runtime, provider, ADDRESS, "secret")


Door = Callable[[Any, str | None], UUID]


@pytest.fixture
def api(runtime: Runtime) -> Iterator[HttpDoor]:
    """The HTTP API, asked with the administrator's key."""
    with served(runtime.settings) as port:
        client = HttpDoor(port, add_key(runtime.db))
        yield client
        client.close()


class Refused(Exception):
    """What HTTP answered."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.said["detail"])
        self.code = answer.code


@pytest.fixture(params=["engine", "sql", "celery", "http"])
def door(request: pytest.FixtureRequest, runtime: Runtime, bell_less: None) -> Door:
    """Each door in turn: takes a message and a key, commits, gives the message's id."""

    def engine(message: Any, key: str | None) -> UUID:
        with runtime.db.begin() as session:
            return outbound.enqueue(ADMINISTRATOR, session, ADDRESS, message, key).uid

    def sql(message: Any, key: str | None) -> UUID:
        with runtime.db.begin() as session:
            return enqueue_by_sql(session, ADDRESS, message, key)

    def celery(message: Any, key: str | None) -> UUID:
        enqueue_task.apply(args=(ADDRESS, message, key), throw=True)
        with runtime.db.begin() as session:
            return UUID(
                str(session.execute(text("SELECT max(uid::text) FROM mailwright.outbox")).scalar_one())
            )

    def http(message: Any, key: str | None) -> UUID:
        answer = request.getfixturevalue("api").enqueue(ADDRESS, message, key)
        if answer.status >= 400:
            raise Refused(answer)
        return UUID(answer.said["id"])

    return {"engine": engine, "sql": sql, "celery": celery, "http": http}[request.param]


@pytest.fixture
def bell_less(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tasks find the runtime, and wake nobody."""
    monkeypatch.setattr("tasks.outbound.tasks.wake", lambda: None)
    install_runtime(runtime)
    yield
    install_runtime(None)


def enqueue_by_sql(session: Any, mailbox: str, message: Any, key: str | None) -> UUID:
    return UUID(
        str(
            session.execute(
                text("SELECT mailwright.enqueue(:mailbox, cast(:message AS jsonb), :key)"),
                {"mailbox": mailbox, "message": json.dumps(message), "key": key},
            ).scalar_one()
        )
    )


def code_of(error: BaseException) -> str:
    """The refusal's code, from our tree or as the SQL function words it."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.Error):
        assert (error.orig.sqlstate or "").startswith("MW")
        return str(error.orig.diag.message_primary).partition(":")[0]
    assert isinstance(error, UserError | Refused)
    return error.code


def count(runtime: Runtime, table: str) -> int:
    with runtime.db.begin() as session:
        return int(session.execute(text(f"SELECT count(*) FROM mailwright.{table}")).scalar_one())


def test_accepted_means_stored_with_its_event(door: Door, runtime: Runtime, mailbox: int) -> None:
    uid = door(MAIL, None)

    with runtime.db.begin() as session:
        row = session.execute(text("SELECT * FROM mailwright.outbox WHERE uid = :uid"), {"uid": uid}).one()
        events = session.execute(text("SELECT type, subject FROM mailwright.events_pending")).all()
    assert (row.state, row.mailbox_id, row.request["subject"]) == ("queued", mailbox, "Hello")
    assert ("outbound.queued", str(uid)) in [tuple(event) for event in events]


def test_a_key_answers_with_the_first_message_and_refuses_another(
    door: Door, runtime: Runtime, mailbox: int
) -> None:
    first = door(MAIL, "order-1")

    assert door(MAIL, "order-1") == first
    with pytest.raises((UserError, DBAPIError, Refused)) as refused:
        door({**MAIL, "subject": "Other"}, "order-1")
    assert code_of(refused.value) == "idempotency_key_reused"
    assert count(runtime, "outbox") == 1


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"text": "x"}, "no_recipients"),
        ({"to": "nobody"}, "address_invalid"),
        ({"to": "a@b.example", "subject": "a\r\nBcc: eve@x.example"}, "header_injection"),
        ({"to": "a@b.example", "headers": {"X-A": "1\n2"}}, "header_injection"),
        ({"to": ["a@b.example\nRCPT TO:<e@x.example>"]}, "header_injection"),
        ({"to": [f"{n}@b.example" for n in range(4)]}, "too_many_recipients"),
        ({"to": "a@b.example", "priority": 1000}, "message_invalid"),
        ({"to": "a@b.example", "not_before": "soon"}, "message_invalid"),
        ({"to": "a@b.example", "expires_at": "2001-01-01T00:00:00Z"}, "message_invalid"),
        (["to", "a@b.example"], "message_invalid"),
    ],
)
def test_a_bad_message_is_refused_with_the_same_code_at_every_door(
    door: Door, runtime: Runtime, mailbox: int, message: Any, code: str
) -> None:
    with pytest.raises((UserError, DBAPIError, Refused)) as refused:
        door(message, None)
    assert code_of(refused.value) == code
    assert count(runtime, "outbox") == 0
    assert count(runtime, "outbox_wakes") == 0


def test_a_backslash_n_that_is_no_line_end_passes(door: Door, mailbox: int) -> None:
    assert door({**MAIL, "subject": r"C:\new \\n and a quote \" here"}, None)


def test_a_race_for_one_key_stores_one_message(runtime: Runtime, mailbox: int) -> None:
    barrier, answers = threading.Barrier(4), []

    def ask() -> None:
        with runtime.db.begin() as session:
            barrier.wait()
            answers.append(outbound.enqueue(ADMINISTRATOR, session, ADDRESS, MAIL, "k"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({answer.uid for answer in answers}) == 1
    assert sorted(answer.duplicate for answer in answers) == [False, True, True, True]
    assert count(runtime, "outbox") == 1


def test_the_sql_door_is_part_of_its_callers_transaction(runtime: Runtime, mailbox: int) -> None:
    with runtime.db.begin() as session:
        enqueue_by_sql(session, ADDRESS, MAIL, "k")
        session.rollback()
    assert count(runtime, "outbox") == 0
    assert count(runtime, "idempotency_keys") == 0


def test_a_callers_long_transaction_holds_up_nobody(runtime: Runtime, mailbox: int) -> None:
    with runtime.db.begin() as slow:
        enqueue_by_sql(slow, ADDRESS, MAIL, None)
        with runtime.db.begin() as other:
            other.execute(text("SET LOCAL lock_timeout = '2s'"))
            enqueue_by_sql(other, ADDRESS, MAIL, None)
            other.execute(text("UPDATE mailwright.outbox_lanes SET next_due_at = now()"))
    assert count(runtime, "outbox") == 2


def test_who_may_not_send_is_refused_and_the_owner_may(runtime: Runtime, mailbox: int) -> None:
    with runtime.db.begin() as session:
        session.execute(text("INSERT INTO mailwright.users (name) VALUES ('olga'), ('mallory')"))
        session.execute(
            text("""UPDATE mailwright.mailboxes
                    SET owner_id = (SELECT id FROM mailwright.users WHERE name = 'olga')""")
        )
    with runtime.db.begin() as session:
        assert outbound.enqueue(Actor("olga"), session, ADDRESS, MAIL)
    with pytest.raises(PermissionDenied), runtime.db.begin() as session:
        outbound.enqueue(Actor("mallory"), session, ADDRESS, MAIL)


def test_at_the_sql_door_the_database_user_is_who_asks(runtime: Runtime, mailbox: int) -> None:
    name = "role_" + runtime.owner[-8:]
    with runtime.db.begin() as session:
        session.execute(text(f'CREATE ROLE "{name}" LOGIN'))
        session.execute(text("INSERT INTO mailwright.users (name) VALUES (:name)"), {"name": name})
    try:
        with pytest.raises(DBAPIError, match="permission denied for schema"):
            as_role(runtime, name)
        with runtime.db.begin() as session:
            session.execute(text(f'GRANT mailwright_enqueue TO "{name}"'))
        with pytest.raises(DBAPIError) as refused:
            as_role(runtime, name)
        assert code_of(refused.value) == "permission_denied"
        with runtime.db.begin() as session:
            session.execute(
                text("""UPDATE mailwright.mailboxes SET owner_id =
                        (SELECT id FROM mailwright.users WHERE name = :name)"""),
                {"name": name},
            )
        as_role(runtime, name)
        with runtime.db.begin() as session:
            assert session.execute(text("SELECT principal FROM mailwright.outbox")).scalar_one() == name
    finally:
        with runtime.db.begin() as session:
            session.execute(text(f'DROP OWNED BY "{name}"'))
            session.execute(text(f'DROP ROLE "{name}"'))


def as_role(runtime: Runtime, name: str) -> None:
    with runtime.db.begin() as session:
        session.execute(text(f'SET LOCAL SESSION AUTHORIZATION "{name}"'))
        enqueue_by_sql(session, ADDRESS, MAIL, None)


def test_an_unknown_mailbox_and_one_that_does_not_send_are_told_apart(runtime: Runtime, mailbox: int) -> None:
    for door in (enqueue_by_sql, lambda s, b, m, k: outbound.enqueue(ADMINISTRATOR, s, b, m, k)):
        with pytest.raises((UserError, DBAPIError)) as refused, runtime.db.begin() as session:
            door(session, "nobody@test.example", MAIL, None)
        assert code_of(refused.value) == "mailbox_unknown"
    with runtime.db.begin() as session:
        session.execute(text("UPDATE mailwright.mailboxes SET send = false"))
    for door in (enqueue_by_sql, lambda s, b, m, k: outbound.enqueue(ADMINISTRATOR, s, b, m, k)):
        with pytest.raises((UserError, DBAPIError)) as refused, runtime.db.begin() as session:
            door(session, ADDRESS, MAIL, None)
        assert code_of(refused.value) == "sending_off"


def test_a_redelivered_task_stores_one_message(runtime: Runtime, mailbox: int, bell_less: None) -> None:
    for _ in range(2):
        enqueue_task.apply(args=(ADDRESS, MAIL), task_id="one-task", throw=True)
    assert count(runtime, "outbox") == 1


def test_cancel_and_retry_follow_the_picture(runtime: Runtime, mailbox: int) -> None:
    with runtime.db.begin() as session:
        uid = outbound.enqueue(ADMINISTRATOR, session, ADDRESS, MAIL).uid
    with runtime.db.begin() as session:
        assert outbound.cancel(ADMINISTRATOR, session, uid) == "cancelled"
    with runtime.db.begin() as session:
        outbound.retry(ADMINISTRATOR, session, uid)
    assert state_of(runtime, uid) == "queued"

    brought_to(runtime, "armed", "uncertain")
    with pytest.raises(UserError, match="--may-duplicate"), runtime.db.begin() as session:
        outbound.retry(ADMINISTRATOR, session, uid)
    with runtime.db.begin() as session:
        outbound.retry(ADMINISTRATOR, session, uid, may_duplicate=True)
    assert state_of(runtime, uid) == "queued"

    brought_to(runtime, "armed", "sent")
    with pytest.raises(UserError, match="nothing to send again"), runtime.db.begin() as session:
        outbound.retry(ADMINISTRATOR, session, uid)


def brought_to(runtime: Runtime, *states: str) -> None:
    """Move the only message as a dispatch would."""
    for state in states:
        with runtime.db.begin() as session:
            session.execute(text("UPDATE mailwright.outbox SET state = :state"), {"state": state})


def state_of(runtime: Runtime, uid: UUID) -> str:
    with runtime.db.begin() as session:
        return str(outbound.show(ADMINISTRATOR, session, uid)["state"])
