"""Whatever a client sends: one clear problem, never a 500, never a half-made row, and the next is served."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from lab.http_door import Answer, HttpDoor, outbox_of
from schema.ids import uuid7
from tasks.outbound.compose import Sender, compose
from tasks.outbound.errors import REFUSALS
from tasks.outbound.values import read
from tasks.runtime import Runtime
from tests.integration.api.conftest import ADDRESS
from worker.api.problems import CODES, MEDIA_TYPE

MAIL = {"to": ["bob@far.example"], "subject": "Hello", "text": "x"}
FULL: dict[str, Any] = {
    "from": {"address": ADDRESS, "name": "Anna"},
    "to": [{"address": "bob@far.example", "name": "Bob"}],
    "cc": ["Carl <carl@far.example>"],
    "bcc": ["dora@far.example"],
    "reply_to": "anna@test.example",
    "subject": "Hello",
    "text": "x",
    "html": "<p>x</p>",
    "attachments": [
        {"name": "a.txt", "content_type": "text/plain", "content": "eA==", "content_id": "a", "inline": True}
    ],
    "headers": {"X-Order": "17"},
    "in_reply_to": "<a@far.example>",
    "references": ["<a@far.example>"],
    "priority": 1,
    "not_before": "2030-01-31T09:00:00+01:00",
    "expires_at": "2030-02-28T09:00:00Z",
}
PATH = outbox_of(ADDRESS)
KEY_INVALID = "idempotency_key_invalid"
JSON = {"Content-Type": "application/json"}
TABLES = ("outbox", "events_pending", "idempotency_keys", "outbox_wakes")


def rows(runtime: Runtime) -> dict[str, int]:
    with runtime.db.begin() as session:
        return {
            name: int(session.execute(text(f"SELECT count(*) FROM mailwright.{name}")).scalar_one())
            for name in TABLES
        }


def problem(answer: Answer) -> str:
    """The code of a proper problem."""
    assert 400 <= answer.status < 500, answer
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.said["status"] == answer.status
    assert answer.said["detail"].isprintable()
    assert 10 < len(answer.said["detail"]) <= 1000
    assert answer.code in CODES
    return answer.code


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every text within a value, and to every name of ``headers``."""
    match value:
        case str():
            yield path
        case dict():
            for name, inner in value.items():
                yield from places(inner, (*path, name))
        case list():
            for number, inner in enumerate(value):
                yield from places(inner, (*path, number))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of ``value`` with something else in one place."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = new(inner[path[-1]])
    return copy


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"", JSON, 400, "body_invalid"),
        (b"{", JSON, 400, "body_invalid"),
        (b"\xff\xfe{}", JSON, 400, "body_invalid"),
        (b'{"to": "\xc3("}', JSON, 400, "body_invalid"),
        (b"{'to': 1}", JSON, 400, "body_invalid"),
        (b'{"priority": NaN}', JSON, 400, "body_invalid"),
        (b'{"priority": -Infinity}', JSON, 400, "body_invalid"),
        (b'{"priority": ' + b"9" * 5000 + b"}", JSON, 400, "body_invalid"),
        (b'{"priority": 1e400, "to": "b@x.example"}', JSON, 400, "message_invalid"),
        (b"[" * 100_000, JSON, 400, "body_invalid"),
        (b"[" * 900 + b"]" * 900, JSON, 400, "message_invalid"),
        (b'{"to": ' + b"[" * 900 + b"]" * 900 + b"}", JSON, 400, "address_invalid"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, JSON, 400, "body_invalid"),
        (b"null", JSON, 400, "message_invalid"),
        (b'"text"', JSON, 400, "message_invalid"),
        (b"{}", JSON, 400, "no_recipients"),
        (b'{"to": "bob@far.example", "too": 1}', JSON, 400, "message_invalid"),
        (b'{"to": "bob@far.example", "text": "\\u0000"}', JSON, 400, "message_invalid"),
        (b'{"to": "bob@far.example", "text": "\\ud800"}', JSON, 400, "message_invalid"),
        (b'{"to": "bob@far.example", "\\ud800": "x"}', JSON, 400, "message_invalid"),
        (b'{"to": "bob@far.example", "raw": "?"}', JSON, 400, "message_invalid"),
        (b'{"to": "bob@far.example"}', {}, 415, "body_invalid"),
        (b'{"to": "bob@far.example"}', {"Content-Type": "text/plain"}, 415, "body_invalid"),
        (b"to=bob", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "body_invalid"),
        (b"\x1f\x8b", {**JSON, "Content-Encoding": "gzip"}, 415, "body_invalid"),
        (b'{"to": "bob@far.example"}', {**JSON, "Idempotency-Key": ""}, 400, KEY_INVALID),
        (b'{"to": "bob@far.example"}', {**JSON, "Idempotency-Key": "k" * 256}, 400, KEY_INVALID),
        (b'{"to": "bob@far.example"}', {**JSON, "Idempotency-Key": "a\x85b"}, 400, KEY_INVALID),
    ],
)  # fmt: skip
def test_a_body_that_is_none_is_a_problem_and_leaves_nothing(
    api: HttpDoor, runtime: Runtime, mailbox: int,
    body: bytes, headers: dict[str, str], status: int, code: str,
) -> None:  # fmt: skip
    for path in (PATH, f"{PATH}/batch"):
        answer = api.ask("POST", path, body, headers)
        found = problem(answer)
        if path == PATH:
            assert (answer.status, found) == (status, code)
    assert set(rows(runtime).values()) == {0}
    assert api.enqueue(ADDRESS, MAIL).status == 201


@pytest.mark.parametrize(
    "path",
    [
        "/v1/mailboxes/%00/outbox", "/v1/mailboxes/%ff%fe/outbox", "/v1/mailboxes/a%0d%0ab@x.example/outbox",
        "/v1/mailboxes/" + "a" * 5000 + "/outbox", "/v1/mailboxes/%F0%9F%92%8C/outbox",
        "/v1/mailboxes/'; DROP TABLE x; --/outbox".replace(" ", "%20"), "/v1/outbox/7/cancel",
        "/v1/outbox/%00/cancel",
    ],
)  # fmt: skip
def test_a_name_that_is_none_is_a_problem(api: HttpDoor, runtime: Runtime, mailbox: int, path: str) -> None:
    assert problem(api.post(path, MAIL)) in {"mailbox_unknown", "parameter_invalid", "not_found"}
    assert set(rows(runtime).values()) == {0}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=x", "limit=99999999999999999999", "after=7", "state=asleep", "since=yesterday",
        "since=99999-01-01", "since=0001-01-01T00:00:00%2B14:00", "recipient=%00", "key=%00",
        "mailbox=%00", "mailbox=nobody", "recipient=%ff",
    ],
)  # fmt: skip
def test_a_parameter_that_is_none_is_a_problem_or_finds_nothing(
    api: HttpDoor, mailbox: int, query: str
) -> None:
    answer = api.ask("GET", f"/v1/outbox?{query}")
    if answer.status != 200:
        problem(answer)


@pytest.mark.parametrize("place", list(places(FULL)), ids=lambda place: ".".join(map(str, place)))
@pytest.mark.parametrize("line_end", ["\r\nBcc: eve@evil.example\r\n", "\nX: y", "\r", "\0", "\x0b", "\x85"])
def test_no_field_puts_a_line_into_the_head_of_a_message(
    api: HttpDoor, runtime: Runtime, mailbox: int, place: tuple[Any, ...], line_end: str
) -> None:
    message = put(FULL, place, lambda was: was + line_end)
    answer = api.enqueue(ADDRESS, message)
    if place in {("text",), ("html",)} and line_end != "\0":
        assert answer.status == 201
    elif answer.status == 201:  # what may stand around base64 and ids is no part of them
        assert place[0] in {"attachments", "in_reply_to", "references", "not_before", "expires_at"}
        head = composed(runtime).partition(b"\r\n\r\n")[0]
        assert b"evil" not in head
        assert b"\nX: y" not in head
    else:
        assert problem(answer) in {"header_injection", "address_invalid", "message_invalid"}
        assert set(rows(runtime).values()) == {0}


@pytest.mark.parametrize("name", ["X-A\r\nBcc", "X-A:", "X A", "", "Ünï", "Bcc", "x" * 100, "X-A\0"])
def test_a_headers_name_is_no_way_in_either(api: HttpDoor, runtime: Runtime, mailbox: int, name: str) -> None:
    for headers in ({name: "v"}, [[name, "v"]]):
        problem(api.enqueue(ADDRESS, {**MAIL, "headers": headers}))
    assert set(rows(runtime).values()) == {0}


def composed(runtime: Runtime) -> bytes:
    """The bytes of the only message, as they would go out."""
    with runtime.db.begin() as session:
        request = session.execute(text("SELECT request FROM mailwright.outbox")).scalar_one()
    sender = Sender(ADDRESS, None, (), 100, None)
    return compose(read(request), sender, uuid7(), datetime.now(UTC)).content


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)
FIELDS = (*FULL, "raw", "unknown")
MESSAGES = ANYTHING | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, ANYTHING)).map(
    lambda some: {**MAIL, **some}
)
KEYS = st.none() | ANYTHING | st.sampled_from(["k1", "k2"])


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    items=st.lists(
        st.fixed_dictionaries({"message": MESSAGES}, optional={"idempotency_key": KEYS}) | ANYTHING,
        min_size=1,
        max_size=6,
    )
)
def test_any_json_is_accepted_whole_or_refused_with_a_code(
    api: HttpDoor, runtime: Runtime, mailbox: int, items: list[Any]
) -> None:
    before = rows(runtime)

    answer = api.enqueue_many(ADDRESS, items)

    assert answer.status == 200
    results = answer.said["results"]
    assert len(results) == len(items)
    for result in results:
        assert result["status"] in (200, 201) or result["code"] in REFUSALS
    new = sum(result["status"] == 201 for result in results)
    after = rows(runtime)
    assert after["outbox"] - before["outbox"] == new
    assert after["events_pending"] - before["events_pending"] == new
    assert after["outbox_wakes"] - before["outbox_wakes"] == (1 if new else 0)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(noise=st.binary(max_size=400), cut=st.integers(0, 200))
def test_bytes_that_are_no_http_end_a_connection_and_nothing_else(
    api: HttpDoor, port: int, runtime: Runtime, mailbox: int, noise: bytes, cut: int
) -> None:
    body = json.dumps(MAIL).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body) + 1}\r\n\r\n"
    request = head.encode() + body
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, suppress(ConnectionError):
        connection.sendall(request[:cut] + noise)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        assert not answer.startswith(b"HTTP/1.1 5"), answer
    assert api.ask("GET", "/healthz").status == 200
    assert rows(runtime)["outbox"] == 0


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 5\r\nContent-Length: 6", "Content-Length: -1", "Content-Length: 1e3",
        "Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: gzip",
        "X: " + "a" * 2**20, "Authorization: Bearer \xff", "Expect: 200-ok\r\nContent-Length: 2",
    ],
)  # fmt: skip
def test_odd_heads_are_refused_and_the_next_is_served(
    api: HttpDoor, port: int, runtime: Runtime, mailbox: int, head: str
) -> None:
    request = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}\r\n\r\n[]"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, suppress(ConnectionError):
        connection.sendall(request.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        said = connection.recv(65536)
        assert not said or said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 100")), said
    assert set(rows(runtime).values()) == {0}
    assert api.enqueue(ADDRESS, MAIL).status == 201
