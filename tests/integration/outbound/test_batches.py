"""Many messages at once, by SQL and by Celery: what is one, what is each by itself, and who may."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from config.errors import PermissionDenied, UserError
from lab.world import Ports, add_mailbox, add_provider
from tasks.outbound.tasks import MOST_BYTES, enqueue_many_task, enqueue_task
from tasks.runtime import Runtime, install_runtime

ADDRESS = "anna@test.example"
MAIL = {"to": ["bob@far.example"], "subject": "Hello", "text": "x"}


@pytest.fixture
def mailbox(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A mailbox that sends; tasks find the runtime, and wake nobody."""
    monkeypatch.setattr("tasks.outbound.tasks.wake", lambda: None)
    install_runtime(runtime)
    yield add_mailbox(runtime, add_provider(runtime, Ports(smtp=9), max_recipients=3), ADDRESS, "secret")
    install_runtime(None)


def mails(*subjects: str) -> list[dict[str, Any]]:
    return [{**MAIL, "subject": subject} for subject in subjects]


def subjects(runtime: Runtime) -> list[str]:
    with runtime.db.begin() as session:
        return list(session.execute(text("SELECT subject FROM mailwright.outbox ORDER BY id")).scalars())


def by_sql(runtime: Runtime, messages: list[Any], keys: list[str | None] | None = None) -> list[Any]:
    with runtime.db.begin() as session:
        rows = session.execute(
            text("""SELECT number, id, duplicate
                    FROM mailwright.enqueue_many(:mailbox, cast(:messages AS jsonb[]), :keys)"""),
            {"mailbox": ADDRESS, "messages": [json.dumps(each) for each in messages], "keys": keys},
        )
        return list(rows.all())


def refusal(error: DBAPIError) -> tuple[str, str]:
    assert isinstance(error.orig, psycopg.Error)
    return str(error.orig.sqlstate), str(error.orig.diag.message_primary)


def refused(runtime: Runtime) -> list[tuple[str, int, str]]:
    """The task, the number and the code of each refusal that was told by an event."""
    with runtime.db.begin() as session:
        rows = session.execute(
            text("SELECT data FROM mailwright.events_pending WHERE type = 'outbound.refused' ORDER BY id")
        ).scalars()
        return [(row["task"], row["number"], row["code"]) for row in rows]


def test_by_sql_many_are_stored_in_order_and_a_key_means_once(runtime: Runtime, mailbox: int) -> None:
    first = by_sql(runtime, mails("one", "two", "three"), ["1", "2", None])
    again = by_sql(runtime, mails("one", "four", "four"), ["1", "4", "4"])

    assert subjects(runtime) == ["one", "two", "three", "four"]
    assert [(row.number, row.duplicate) for row in first] == [(1, False), (2, False), (3, False)]
    assert [row.duplicate for row in again] == [True, False, True]
    assert again[0].id == first[0].id
    assert again[1].id == again[2].id
    assert len(by_sql(runtime, mails("five"))) == 1
    assert by_sql(runtime, []) == []


def test_by_sql_one_that_is_wrong_stops_all_and_is_named(runtime: Runtime, mailbox: int) -> None:
    with pytest.raises(DBAPIError) as wrong:
        by_sql(runtime, [*mails("one", "two"), {**MAIL, "to": "nobody"}])
    assert refusal(wrong.value) == ("MW400", 'address_invalid: message 3: "nobody" is no address.')

    by_sql(runtime, mails("one"), ["1"])
    with pytest.raises(DBAPIError) as wrong:
        by_sql(runtime, mails("two", "other"), ["2", "1"])
    assert refusal(wrong.value)[0] == "MW409"

    for keys in (["1"], ["1", "2", "3"]):
        with pytest.raises(DBAPIError) as wrong:
            by_sql(runtime, mails("two", "three"), [*keys])
        assert refusal(wrong.value)[1].startswith("message_invalid")
    assert subjects(runtime) == ["one"]


def test_who_is_in_the_doors_role_may_call_the_door_and_read_nothing(runtime: Runtime, mailbox: int) -> None:
    name = "shop_" + runtime.owner[-8:]
    with runtime.db.begin() as session:
        session.execute(text(f'CREATE ROLE "{name}" LOGIN IN ROLE mailwright_enqueue'))
        session.execute(text("INSERT INTO mailwright.users (name) VALUES (:name)"), {"name": name})
        session.execute(
            text("""UPDATE mailwright.mailboxes
                    SET owner_id = (SELECT id FROM mailwright.users WHERE name = :name)"""),
            {"name": name},
        )
    try:
        with runtime.db.begin() as session:
            session.execute(text(f'SET LOCAL SESSION AUTHORIZATION "{name}"'))
            count = "SELECT count(*) FROM mailwright.enqueue_many(:mailbox, cast(:messages AS jsonb[]))"
            given = {"mailbox": ADDRESS, "messages": [json.dumps(each) for each in mails("a", "b")]}
            assert session.execute(text(count), given).scalar_one() == 2
        for closed in (
            "SELECT * FROM mailwright.outbox",
            "SELECT * FROM mailwright.accept_messages(1, '{}', '{}', 'administrator')",
            "SELECT * FROM mailwright.sending_mailbox('anna@test.example')",
        ):
            with runtime.db.begin() as session:
                session.execute(text(f'SET LOCAL SESSION AUTHORIZATION "{name}"'))
                with pytest.raises(DBAPIError, match="permission denied"):
                    session.execute(text(closed))
                session.rollback()
    finally:
        with runtime.db.begin() as session:
            session.execute(text(f'DROP ROLE "{name}"'))


def test_of_a_tasks_many_the_good_are_stored_and_the_bad_are_told(runtime: Runtime, mailbox: int) -> None:
    items: list[Any] = [{"message": mail} for mail in mails("one", "two", "three")]
    items[1]["message"]["to"] = "nobody"
    items += [{"message": MAIL, "idempotency_key": "k"}, {"mail": MAIL}, 7]

    for _ in range(2):  # as a broker may deliver it
        enqueue_many_task.apply(args=(ADDRESS, items), task_id="t", throw=True)

    assert subjects(runtime) == ["one", "three", "Hello"]
    assert refused(runtime) == [
        ("t", 2, "address_invalid"), ("t", 5, "message_invalid"), ("t", 6, "message_invalid"),
    ] * 2  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "named", "code"),
    [
        ((), {}, "mailbox_unknown"),
        ((ADDRESS,), {}, "message_invalid"),
        ((7, MAIL), {}, "mailbox_unknown"),
        (("nobody@test.example", MAIL), {}, "mailbox_unknown"),
        ((ADDRESS, MAIL, ["k"]), {}, "idempotency_key_invalid"),
        ((ADDRESS, MAIL, "k\0"), {}, "idempotency_key_invalid"),
        ((ADDRESS, MAIL, "k", "stranger"), {}, "permission_denied"),
        ((ADDRESS, MAIL, "k", 7), {}, "permission_denied"),
        ((ADDRESS, MAIL, "k", None, "more"), {}, "message_invalid"),
        ((ADDRESS, MAIL), {"countdown": 3}, "message_invalid"),
        ((ADDRESS, {**MAIL, "text": "x" * MOST_BYTES}), {}, "message_too_big"),
        ((ADDRESS, {**MAIL, "text": "a\0b"}), {}, "message_invalid"),
        ((ADDRESS, {**MAIL, "text": "\ud800"}), {}, "message_invalid"),
        ((f"{ADDRESS}\0", MAIL), {}, "mailbox_unknown"),
    ],
)
def test_whatever_a_task_brings_is_refused_with_a_code_and_an_event(
    runtime: Runtime, mailbox: int, arguments: tuple[Any, ...], named: dict[str, Any], code: str
) -> None:
    with pytest.raises(UserError) as wrong:
        enqueue_task.apply(args=arguments, kwargs=named, task_id="t", throw=True)
    assert wrong.value.code == code
    assert refused(runtime) == [("t", 1, code)]
    assert subjects(runtime) == []


def test_a_task_hands_in_mail_on_behalf_of_those_alone_whom_the_setting_names(
    runtime: Runtime, mailbox: int
) -> None:
    with runtime.db.begin() as session:
        session.execute(text("INSERT INTO mailwright.users (name) VALUES ('shop'), ('other')"))
        session.execute(
            text("""UPDATE mailwright.mailboxes
                    SET owner_id = (SELECT id FROM mailwright.users WHERE name = 'shop')""")
        )
    runtime.settings.enqueue_as = "Shop"
    for principal in ("administrator", "other"):
        with pytest.raises(PermissionDenied, match="MAILWRIGHT_ENQUEUE_AS"):
            enqueue_task.apply(args=(ADDRESS, MAIL, None, principal), throw=True)
    enqueue_task.apply(args=(ADDRESS, MAIL), throw=True)
    enqueue_task.apply(args=(ADDRESS, MAIL, None, "SHOP"), throw=True)
    assert subjects(runtime) == ["Hello", "Hello"]
