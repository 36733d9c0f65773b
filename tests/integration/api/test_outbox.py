"""Mail by HTTP: accepted means committed, a key means once, and who may is asked first."""

import json
import socket
import threading
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from lab.http_door import HttpDoor, add_key, outbox_of
from tasks import outbound
from tasks.access import Actor, Scope
from tasks.outbound.errors import REFUSALS
from tasks.runtime import Runtime
from tests.integration.api.conftest import ADDRESS
from worker.api.bodies import MOST_BYTES

MAIL = {"to": ["bob@far.example"], "subject": "Hello", "text": "x"}


def item(number: int, **more: Any) -> dict[str, Any]:
    return {"message": {**MAIL, "subject": f"No. {number}", **more}, "idempotency_key": f"order-{number}"}


def rows(runtime: Runtime, query: str) -> list[Any]:
    with runtime.db.begin() as session:
        return list(session.execute(text(query)).all())


def subjects(runtime: Runtime) -> list[str]:
    return [row[0] for row in rows(runtime, "SELECT subject FROM mailwright.outbox ORDER BY id")]


def test_a_message_is_stored_with_its_event_and_the_dispatcher_is_woken(
    api: HttpDoor, runtime: Runtime, mailbox: int, rung: threading.Event
) -> None:
    answer = api.enqueue(ADDRESS, MAIL, "order-1")

    assert (answer.status, answer.said["duplicate"]) == (201, False)
    (row,) = rows(runtime, "SELECT uid, mailbox_id, state, principal, request FROM mailwright.outbox")
    assert row == (UUID(answer.said["id"]), mailbox, "queued", "administrator", MAIL)
    assert [str(row.uid)] == [
        event.subject for event in rows(runtime, "SELECT subject FROM mailwright.events_pending")
    ]
    assert rung.wait(10)

    shown = api.ask("GET", answer.headers["location"])
    assert (shown.status, shown.said["id"], shown.said["state"]) == (200, answer.said["id"], "queued")
    assert api.post(f"{answer.headers['location']}/cancel", None).said["state"] == "cancelled"


def test_the_mailbox_may_be_named_by_its_id(api: HttpDoor, runtime: Runtime, mailbox: int) -> None:
    ((uid,),) = rows(runtime, "SELECT uid FROM mailwright.mailboxes")
    assert api.enqueue(str(uid), MAIL).status == 201
    assert api.enqueue("00000000-0000-7000-8000-000000000000", MAIL).code == "mailbox_unknown"
    assert api.enqueue("nobody@test.example", MAIL).status == 404


def test_a_key_answers_with_the_first_message_and_refuses_another(
    api: HttpDoor, runtime: Runtime, mailbox: int
) -> None:
    first = api.enqueue(ADDRESS, MAIL, "order-1")
    again = api.enqueue(ADDRESS, MAIL, "order-1")
    other = api.enqueue(ADDRESS, {**MAIL, "subject": "Other"}, "order-1")

    assert (again.status, again.said) == (200, {"id": first.said["id"], "duplicate": True})
    assert (other.status, other.code) == (409, "idempotency_key_reused")
    assert subjects(runtime) == ["Hello"]


def test_a_key_in_somebodys_open_transaction_is_not_waited_for_long(
    api: HttpDoor, runtime: Runtime, mailbox: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.api.door.LONGEST_WAIT", 1)
    with runtime.db.begin() as session:
        outbound.enqueue(Actor("administrator"), session, ADDRESS, MAIL, "order-1")
        meanwhile = api.enqueue(ADDRESS, MAIL, "order-1")
        assert (meanwhile.status, meanwhile.code) == (503, "database_down")
        assert api.enqueue(ADDRESS, MAIL, "order-2").status == 201
    assert api.enqueue(ADDRESS, MAIL, "order-1").status == 200
    assert len(subjects(runtime)) == 2


def test_in_a_batch_each_is_answered_by_itself_in_order(
    api: HttpDoor, runtime: Runtime, mailbox: int
) -> None:
    api.enqueue(ADDRESS, item(3)["message"], "order-3")

    answer = api.enqueue_many(
        ADDRESS,
        [item(1), item(2, to="nobody"), item(3), item(1), item(1, text="y"), {"message": MAIL}, "no object"],
    )

    assert answer.status == 200
    results = answer.said["results"]
    assert [one["status"] for one in results] == [201, 400, 200, 200, 409, 201, 400]
    assert results[3]["id"] == results[0]["id"]
    assert [one["code"] for one in results if "code" in one] == [
        "address_invalid", "idempotency_key_reused", "message_invalid",
    ]  # fmt: skip
    assert subjects(runtime) == ["No. 3", "No. 1", "Hello"]


def test_a_batch_has_its_bounds(api: HttpDoor, runtime: Runtime, mailbox: int) -> None:
    wide = [item(number) for number in range(1000)]
    answer = api.enqueue_many(ADDRESS, wide)
    assert {one["status"] for one in answer.said["results"]} == {201}
    assert subjects(runtime) == [f"No. {number}" for number in range(1000)]
    for wrong in ([], [*wide, item(1000)]):
        assert api.enqueue_many(ADDRESS, wrong).code == "body_invalid"


def test_without_a_key_in_force_nothing_is_done_nor_told(
    port: int, api: HttpDoor, runtime: Runtime, mailbox: int
) -> None:
    gone, old = add_key(runtime.db), add_key(runtime.db)
    with runtime.db.begin() as session:
        session.execute(
            text("DELETE FROM mailwright.api_keys WHERE uid = cast(:uid AS uuid)"),
            {"uid": gone.split("_")[1]},
        )
        session.execute(
            text("UPDATE mailwright.api_keys SET expires_at = now() WHERE uid = cast(:uid AS uuid)"),
            {"uid": old.split("_")[1]},
        )
    assert api.key is not None
    forged = api.key[:-1] + ("A" if api.key[-1] != "A" else "B")
    for token in (None, "", "secret", gone, old, forged, "mwk_" + "0" * 32 + "_" + "A" * 43):
        stranger = HttpDoor(port, token)
        for mailbox_name in (ADDRESS, "nobody@test.example"):
            answer = stranger.enqueue(mailbox_name, MAIL)
            assert (answer.status, answer.code) == (401, "unauthenticated")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert stranger.ask("GET", "/v1/outbox").status == 401
    assert subjects(runtime) == []


def test_a_key_acts_as_its_user_within_its_scopes(port: int, runtime: Runtime, mailbox: int) -> None:
    with runtime.db.begin() as session:
        session.execute(text("INSERT INTO mailwright.users (name) VALUES ('olga'), ('mallory')"))
        session.execute(
            text("""UPDATE mailwright.mailboxes
                    SET owner_id = (SELECT id FROM mailwright.users WHERE name = 'olga')""")
        )
    olga = HttpDoor(port, add_key(runtime.db, "olga"))
    reader = HttpDoor(port, add_key(runtime.db, "olga", [Scope.OUTBOX_READ]))
    mallory = HttpDoor(port, add_key(runtime.db, "mallory"))

    sent = olga.enqueue(ADDRESS, MAIL)
    assert sent.status == 201
    assert [row["id"] for row in reader.ask("GET", "/v1/outbox").said["messages"]] == [sent.said["id"]]

    assert reader.enqueue(ADDRESS, MAIL).code == "scope_missing"
    assert mallory.ask("GET", "/v1/outbox").said["messages"] == []
    for name in (ADDRESS, "nobody@test.example"):  # who may not is not told which mailboxes there are
        assert (mallory.enqueue(name, MAIL).status, mallory.enqueue(name, MAIL).code) == (
            403,
            "permission_denied",
        )
    assert mallory.ask("GET", sent.headers["location"]).status in (403, 404)
    assert mallory.post(sent.headers["location"] + "/cancel", None).status in (403, 404)
    assert subjects(runtime) == ["Hello"]
    used = rows(runtime, "SELECT count(last_used_at) FROM mailwright.api_keys")
    assert used == [(3,)]


def test_pages_follow_each_other_from_the_newest(api: HttpDoor, mailbox: int) -> None:
    api.enqueue_many(ADDRESS, [item(number) for number in range(5)])

    seen, path = [], "/v1/outbox?limit=2"
    while True:
        page = api.ask("GET", path).said
        seen.append([row["subject"] for row in page["messages"]])
        if page["next"] is None:
            break
        path = f"/v1/outbox?limit=2&after={page['next']}"
    assert seen == [["No. 4", "No. 3"], ["No. 2", "No. 1"], ["No. 0"]]


def test_a_body_too_big_is_refused_before_it_is_read(api: HttpDoor, port: int, mailbox: int) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": str(MOST_BYTES + 1)}
    answer = api.ask("POST", outbox_of(ADDRESS), b"{", headers)  # no more than that was sent
    assert (answer.status, answer.code) == (413, "message_too_big")


@pytest.mark.parametrize(("known", "mebibytes", "status"), [(False, 0, 401), (True, 65, 413)])
def test_a_body_that_does_not_tell_its_size_is_counted_and_a_strangers_not_read(
    api: HttpDoor, port: int, mailbox: int, known: bool, mebibytes: int, status: int
) -> None:
    head = f"POST {outbox_of(ADDRESS)} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {api.key if known else 'none'}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode())
        for _ in range(mebibytes):
            connection.sendall(b"100000\r\n" + b" " * 2**20 + b"\r\n")
        assert connection.recv(12) == f"HTTP/1.1 {status}".encode()  # and the body has not ended


def test_the_description_is_whole_and_its_codes_are_those_of_all_doors(api: HttpDoor) -> None:
    told = api.ask("GET", "/v1/openapi.json").said

    assert told["openapi"].startswith("3.1")
    written = json.dumps(told)
    for reference in {part.split('"')[0] for part in written.split('"#/components/')[1:]}:
        kind, name = reference.split("/")
        assert name in told["components"][kind], reference
    assert set(told["paths"]) == {
        "/healthz", "/readyz", "/v1/mailboxes/{mailbox}/outbox", "/v1/mailboxes/{mailbox}/outbox/batch",
        "/v1/outbox", "/v1/outbox/{message}", "/v1/outbox/{message}/cancel",
    }  # fmt: skip
    assert set(told["components"]["schemas"]["Problem"]["properties"]["code"]["examples"]) >= set(REFUSALS)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/outbox/", "/v2/outbox", "/v1/mailboxes/x/outbox/y"])
def test_what_is_not_there_is_a_problem_too(api: HttpDoor, path: str) -> None:
    answer = api.ask("GET", path)
    assert (answer.status, answer.code) == (404, "not_found")
    assert answer.headers["content-type"] == "application/problem+json"
