"""Who may do what, in the database: the ordered list, the last administrator, the trail."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from config.errors import Conflict, MailwrightError, NotFound, PermissionDenied, UserError
from schema.database import Database
from tasks import access
from tasks.access import SYSTEM, Actor, Grantee, GranteeKind, Operation

ADMIN = Actor("administrator")
ADMINISTER = Operation.MANAGE_ADMINISTRATION


def user(name: str) -> Grantee:
    return Grantee(GranteeKind.USER, name)


def role(name: str) -> Grantee:
    return Grantee(GranteeKind.ROLE, name)


def order(db: Database) -> list[tuple[str, str, bool]]:
    with db.begin() as session:
        lines = access.list_grants(SYSTEM, session)
    assert [line.position for line in lines] == list(range(1, len(lines) + 1))
    return [(line.operation.value, line.grantee.name, line.allow) for line in lines]


def table(db: Database, name: str) -> list[tuple[Any, ...]]:
    with db.begin() as session:
        return [tuple(row) for row in session.execute(text(f"SELECT * FROM mailwright.{name} ORDER BY 1"))]


def test_the_built_in_administrator_holds_every_operation(db: Database) -> None:
    with db.begin() as session:
        for operation in Operation:
            access.require(session, ADMIN, operation)
            access.require(session, Actor("ADMINISTRATOR"), operation)


def test_no_match_denies_with_the_reason_and_the_way_on(db: Database) -> None:
    with db.begin() as session:
        access.add_user(ADMIN, session, "bob")
        with pytest.raises(PermissionDenied) as refusal:
            access.require(session, Actor("bob"), ADMINISTER, "add a provider")
    told = str(refusal.value)
    assert 'user "bob" may not add a provider' in told
    assert "CanManageAdministration" in told
    assert "Access to 'Access rights' workspace" in told
    assert "no line" in told
    assert "mailwright grant add CanManageAdministration --user bob" in told


def test_an_unknown_user_is_refused_whatever_the_name(db: Database) -> None:
    with db.begin() as session:
        for name in ("nobody", "", "a\x00b", "\ud800", "system"):
            with pytest.raises(PermissionDenied, match="there is no user"):
                access.require(session, Actor(name), ADMINISTER)
            assert not access.allowed(session, Actor(name), ADMINISTER)
            assert access.user_id(session, Actor(name)) is None


def test_the_first_matching_line_decides(db: Database) -> None:
    bob = Actor("bob")
    with db.begin() as session:
        access.add_role(ADMIN, session, "readers")
        access.add_user(ADMIN, session, "Bob", ["readers"])
        access.grant(ADMIN, session, Operation.READ_MESSAGES, role("readers"))
        assert access.allowed(session, bob, Operation.READ_MESSAGES)

        access.grant(ADMIN, session, Operation.READ_MESSAGES, user("bob"), allow=False)
        assert access.allowed(session, bob, Operation.READ_MESSAGES)

        access.grant(ADMIN, session, Operation.READ_MESSAGES, user("bob"), allow=False, position=1)
        verdict = access.explain(ADMIN, session, "bob", Operation.READ_MESSAGES)
        assert not verdict.allowed
        assert verdict.reason == 'line 1 denies it to user "Bob"'

        access.move_grant(ADMIN, session, 1, 8)
        assert access.explain(bob, session, "BOB", Operation.READ_MESSAGES).allowed

        access.unassign_role(ADMIN, session, "readers", "bob")
        assert not access.allowed(session, bob, Operation.READ_MESSAGES)


def test_python_and_sql_agree_on_who_is_allowed(db: Database) -> None:
    with db.begin() as session:
        access.add_user(ADMIN, session, "bob")
        access.grant(ADMIN, session, Operation.SEND_MESSAGES, user("bob"))
        for name in ("administrator", "bob", "BOB", "nobody"):
            for operation in Operation:
                told = session.execute(text("SELECT mailwright.allowed(:n, :o)"), {"n": name, "o": operation})
                assert told.scalar_one() == access.allowed(session, Actor(name), operation)


def test_lines_are_inserted_moved_and_removed_without_gaps(db: Database) -> None:
    first = order(db)
    with db.begin() as session:
        access.add_user(ADMIN, session, "bob")
        access.grant(ADMIN, session, Operation.READ_MESSAGES, user("bob"), position=2)
        access.grant(ADMIN, session, Operation.SEND_MESSAGES, user("bob"))
    reads, sends = ("CanReadMessages", "bob", True), ("CanSendMessages", "bob", True)
    assert order(db) == [first[0], reads, *first[1:], sends]
    with db.begin() as session:
        access.move_grant(ADMIN, session, 7, 1)
    assert order(db) == [sends, first[0], reads, *first[1:]]
    with db.begin() as session:
        access.move_grant(ADMIN, session, 1, 3)
    assert order(db) == [first[0], reads, sends, *first[1:]]
    with db.begin() as session:
        access.remove_grant(ADMIN, session, 2)
    assert order(db) == [first[0], sends, *first[1:]]
    with db.begin() as session:
        access.remove_user(ADMIN, session, "bob")
    assert order(db) == first


def test_a_position_off_the_list_is_refused(db: Database) -> None:
    with db.begin() as session:
        for position in (0, -1, 7, 2**40):
            with pytest.raises(UserError, match="1 to 6"):
                access.grant(ADMIN, session, ADMINISTER, role("administrators"), position=position)
            with pytest.raises(NotFound, match="it has 5"):
                access.remove_grant(ADMIN, session, position)


LAST_STROKES: dict[str, Callable[[Session], object]] = {
    "remove the role": lambda s: access.remove_role(ADMIN, s, "administrators"),
    "leave the role": lambda s: access.unassign_role(ADMIN, s, "administrators", "administrator"),
    "remove the line": lambda s: access.remove_grant(ADMIN, s, 1),
    "deny the user": lambda s: access.grant(
        ADMIN, s, ADMINISTER, user("administrator"), allow=False, position=1
    ),
    "deny the role": lambda s: access.grant(
        ADMIN, s, ADMINISTER, role("administrators"), allow=False, position=1
    ),
}


def test_the_last_administrator_cannot_be_taken_away(db: Database) -> None:
    before = table(db, "operation_permissions"), table(db, "user_roles"), table(db, "audit")
    for stroke in LAST_STROKES.values():
        with pytest.raises(Conflict, match="last administrator"), db.begin() as session:
            stroke(session)
        assert (table(db, "operation_permissions"), table(db, "user_roles"), table(db, "audit")) == before


def test_with_another_administrator_the_same_is_fine(db: Database) -> None:
    with db.begin() as session:
        access.add_user(ADMIN, session, "bob")
        access.grant(ADMIN, session, ADMINISTER, user("bob"))
    for stroke in LAST_STROKES.values():
        with db.begin() as session:
            stroke(session)
            assert access.allowed(session, Actor("bob"), ADMINISTER)
            session.rollback()


def test_moving_a_denial_up_past_the_last_administrator_is_refused(db: Database) -> None:
    with db.begin() as session:
        access.grant(ADMIN, session, ADMINISTER, user("administrator"), allow=False)
    with pytest.raises(Conflict, match="last administrator"), db.begin() as session:
        access.move_grant(ADMIN, session, 6, 1)


def test_two_administrators_who_remove_each_other_at_once_leave_one(db: Database) -> None:
    with db.begin() as session:
        for name in ("bob", "eve"):
            access.add_user(ADMIN, session, name)
            access.grant(ADMIN, session, ADMINISTER, user(name))
        access.unassign_role(ADMIN, session, "administrators", "administrator")
    barrier = threading.Barrier(2)
    refusals: list[MailwrightError] = []

    def remove(actor: str, victim: str) -> None:
        try:
            with db.begin() as session:
                session.execute(text("SELECT 1"))
                barrier.wait(10)
                access.remove_user(Actor(actor), session, victim)
        except MailwrightError as refusal:
            refusals.append(refusal)

    threads = [threading.Thread(target=remove, args=pair) for pair in (("bob", "eve"), ("eve", "bob"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [type(refusal) for refusal in refusals] == [PermissionDenied]
    assert len({row[2] for row in table(db, "users")} & {"bob", "eve"}) == 1


def test_the_administrator_is_built_in(db: Database) -> None:
    with db.begin() as session:
        access.add_user(ADMIN, session, "bob", ["administrators"])
    with pytest.raises(Conflict, match="built in"), db.begin() as session:
        access.remove_user(Actor("bob"), session, "Administrator")


def test_every_change_needs_the_right(db: Database) -> None:
    bob = Actor("bob")
    with db.begin() as session:
        access.add_user(ADMIN, session, "bob")
    tries: list[Callable[[Session], object]] = [
        lambda s: access.add_user(bob, s, "eve"),
        lambda s: access.remove_user(bob, s, "bob"),
        lambda s: access.list_users(bob, s),
        lambda s: access.add_role(bob, s, "r"),
        lambda s: access.remove_role(bob, s, "administrators"),
        lambda s: access.list_roles(bob, s),
        lambda s: access.assign_role(bob, s, "administrators", "bob"),
        lambda s: access.unassign_role(bob, s, "administrators", "administrator"),
        lambda s: access.grant(bob, s, ADMINISTER, user("bob")),
        lambda s: access.remove_grant(bob, s, 1),
        lambda s: access.move_grant(bob, s, 1, 2),
        lambda s: access.list_grants(bob, s),
        lambda s: access.list_audit(bob, s),
        lambda s: access.explain(bob, s, "administrator", ADMINISTER),
    ]
    for attempt in tries:
        with pytest.raises(PermissionDenied), db.begin() as session:
            attempt(session)


def test_names_are_unique_in_any_case(db: Database) -> None:
    with db.begin() as session:
        access.add_user(ADMIN, session, "Bob")
        access.add_role(ADMIN, session, "Readers")
    with pytest.raises(Conflict, match="already a user"), db.begin() as session:
        access.add_user(ADMIN, session, "bOB")
    with pytest.raises(Conflict, match="already a role"), db.begin() as session:
        access.add_role(ADMIN, session, "READERS")
    with pytest.raises(UserError, match="reserved"), db.begin() as session:
        access.add_user(ADMIN, session, "System")


def test_what_is_not_there_is_named(db: Database) -> None:
    with db.begin() as session:
        for attempt in (
            lambda: access.remove_user(ADMIN, session, "nobody"),
            lambda: access.remove_role(ADMIN, session, "a\x00b"),
            lambda: access.assign_role(ADMIN, session, "administrators", "nobody"),
            lambda: access.grant(ADMIN, session, ADMINISTER, role("none")),
            lambda: access.explain(ADMIN, session, "nobody", ADMINISTER),
        ):
            with pytest.raises(NotFound, match="List them"):
                attempt()


def test_joining_twice_changes_nothing(db: Database) -> None:
    with db.begin() as session:
        access.add_user(ADMIN, session, "bob")
        assert access.assign_role(ADMIN, session, "administrators", "bob")
        assert not access.assign_role(ADMIN, session, "administrators", "BOB")
        assert access.unassign_role(ADMIN, session, "administrators", "bob")
        assert not access.unassign_role(ADMIN, session, "administrators", "bob")


def test_the_trail_tells_who_did_what(db: Database) -> None:
    with db.begin() as session:
        access.add_user(Actor("ADMINISTRATOR"), session, "bob")
        access.grant(ADMIN, session, ADMINISTER, user("bob"))
        access.add_role(Actor("bob"), session, "readers")
        told = [(entry.actor, entry.action, entry.name) for entry in access.list_audit(ADMIN, session)]
        by_bob = access.list_audit(ADMIN, session, by="BOB")
        about_roles = access.list_audit(ADMIN, session, kind="role", limit=1)
    assert told == [
        ("bob", "role.added", "readers"),
        ("administrator", "grant.added", "CanManageAdministration"),
        ("administrator", "user.added", "bob"),
    ]
    assert [entry.name for entry in by_bob] == [entry.name for entry in about_roles] == ["readers"]


BROKEN = (
    "INSERT INTO mailwright.users (name) VALUES ('')",
    "INSERT INTO mailwright.users (name) VALUES (repeat('x', 251))",
    "INSERT INTO mailwright.users (name) VALUES (E'a\\nb')",
    "INSERT INTO mailwright.users (name) VALUES ('Administrator')",
    "INSERT INTO mailwright.roles (name) VALUES ('Administrators')",
    """INSERT INTO mailwright.operation_permissions (position, operation, allow, user_id)
       SELECT 9, 'CanFly', true, id FROM mailwright.users""",
    """INSERT INTO mailwright.operation_permissions (position, operation, allow)
       VALUES (9, 'CanReadMessages', true)""",
    "UPDATE mailwright.operation_permissions SET position = 1",
)


def test_the_database_keeps_the_rules_too(db: Database) -> None:
    with db.begin() as session:
        session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        for statement in BROKEN:
            with pytest.raises(IntegrityError), session.begin_nested():
                session.execute(text(statement))
