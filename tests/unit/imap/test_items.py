"""What FETCH, STATUS and LIST responses say, in every form servers give them."""

from datetime import UTC, datetime
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.wire.imap.items import (
    FetchItems,
    ListItems,
    fetch_items,
    internal_date,
    list_items,
    numbered,
    status_items,
)
from tasks.wire.imap.scanner import Data, Literal, Scanner

DATE = b"17-Jul-2026 02:44:25 +0200"
WHEN = datetime(2026, 7, 17, 0, 44, 25, tzinfo=UTC)


def data(stream: bytes) -> Data:
    """The one response in ``stream``."""
    scanner = Scanner()
    scanner.feed(stream + b"\r\n")
    event = scanner.next_event()
    assert isinstance(event, Data)
    return event


def fetch(stream: bytes) -> FetchItems | None:
    """What a FETCH response tells."""
    return fetch_items(data(stream))


@pytest.mark.parametrize("order", list(permutations(range(6))))
def test_items_come_in_any_order(order: tuple[int, ...]) -> None:
    items = [
        b"UID 5",
        b"FLAGS (\\Seen \\Recent $x)",
        b'INTERNALDATE "' + DATE + b'"',
        b"RFC822.SIZE 3",
        b"MODSEQ (9)",
        b"BODY[] {3}\r\nabc",
    ]

    found = fetch(b"* 1 FETCH (" + b" ".join(items[index] for index in order) + b")")

    assert found == FetchItems(5, ("$x", "\\Seen"), 9, WHEN, 3, body=Literal(b"abc", 3), told_body=True)


@pytest.mark.parametrize(
    ("items", "email_id", "thread_id"),
    [
        (b"EMAILID (M6d99ac3275bb4e) THREADID (T64b478a75b7ea9)", "M6d99ac3275bb4e", "T64b478a75b7ea9"),
        (b"THREADID NIL EMAILID (M-1_a)", "M-1_a", None),
        (b"X-GM-THRID 1266894439832287888 X-GM-MSGID 12784", "12784", "1266894439832287888"),
        (b'EMAILID () THREADID (a b) X-GM-LABELS (\\Inbox "a)b")', None, None),
        (b'EMAILID ("no id") X-GM-THRID ""', None, None),
    ],
)
def test_what_the_server_knows_a_message_by(
    items: bytes, email_id: str | None, thread_id: str | None
) -> None:
    found = fetch(b"* 1 FETCH (" + items + b" UID 5 FLAGS ())")

    assert found == FetchItems(5, (), email_id=email_id, thread_id=thread_id)


@pytest.mark.parametrize(
    "uid",
    [b"UID 5", b'UID "5"', b"UID {1}\r\n5", b"uid 5", b'X-GM-LABELS (\\Inbox "a)b" {2}\r\n)( (NIL)) UID 5'],
)
@pytest.mark.parametrize(
    "rest", [b"INTERNALDATE NIL", b"RFC822.SIZE NIL", b"FLAGS NIL", b"MODSEQ NIL", b"ENVELOPE NIL"]
)
def test_quoted_nil_and_literal_stand_anywhere(uid: bytes, rest: bytes) -> None:
    for stream in (uid + b" " + rest, rest + b" " + uid):
        found = fetch(b"* 1 FETCH (" + stream + b")")

        assert found is not None
        assert found.uid == 5
        assert found.internal_at is found.size is found.modseq is None


@pytest.mark.parametrize(
    ("told", "body"),
    [
        (b"BODY[] {3}\r\na\rb", b"a\rb"),
        (b"BODY[] ~{3}\r\na\0b", b"a\0b"),
        (b'BODY[] "a\\"\\\\b"', b'a"\\b'),
        (b'BODY[] ""', b""),
        (b"BODY[]<0> {0}\r\n", b""),
        (b"RFC822 {1}\r\nx", b"x"),
        (b"BODY[HEADER] {1}\r\nx", b"x"),
        (b"body[] atom", b"atom"),
    ],
)
def test_a_body_has_many_forms(told: bytes, body: bytes) -> None:
    found = fetch(b"* 1 FETCH (" + told + b" UID 7)")

    assert found is not None
    assert (found.uid, found.body) == (7, Literal(body, len(body)))


def test_a_body_of_nil_is_no_body() -> None:
    found = fetch(b"* 1 FETCH (BODY[] NIL UID 7)")

    assert found == FetchItems(uid=7, told_body=True)


def test_minus_one_as_a_line_count_harms_nothing() -> None:
    found = fetch(
        b'* 1 FETCH (BODYSTRUCTURE (("a" "b" NIL NIL NIL "7bit" 3 -1) "mixed") UID 7 RFC822.SIZE -1)'
    )

    assert found == FetchItems(uid=7)


@pytest.mark.parametrize(
    "broken",
    [
        b'* 1 FETCH (FLAGS "open',
        b"* 1 FETCH (FLAGS \xff)",
        b"* 1 FETCH (A" + b" (" * 99,
        b"* 1 FETCH ((",
        b"* 1 FETCH (UID",
    ],
)
def test_a_broken_response_is_none(broken: bytes) -> None:
    found = fetch(broken)

    assert found is None or found.uid is None


@pytest.mark.parametrize("junk", [b'FLAGS "open', b'FLAGS (a "b)', b"FLAGS )(", b"X" + b" (" * 99, b"]"])
def test_uid_and_body_are_kept_of_a_broken_response(junk: bytes) -> None:
    after = fetch(b"* 1 FETCH (UID 5 " + junk + b" BODY[] {3}\r\nabc)")
    before = fetch(b"* 1 FETCH (UID 5 BODY[] {3}\r\nabc " + junk + b")")

    assert after == FetchItems(5, body=Literal(b"abc", 3), told_body=True)
    assert before is not None
    assert (before.uid, before.body) == (5, Literal(b"abc", 3))


@given(st.binary(max_size=200).map(lambda junk: junk.replace(b"\n", b"").replace(b"}", b"")))
def test_nothing_in_a_response_raises(junk: bytes) -> None:
    for head in (b"1 FETCH (", b"STATUS ", b"LIST "):
        event = Data((head + junk,))
        fetch_items(event), status_items(event), list_items(event), numbered(event)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        (DATE, WHEN),
        (b" 7-Jul-2026 02:44:25 -0030", datetime(2026, 7, 7, 3, 14, 25, tzinfo=UTC)),
        (b"31-Feb-2026 00:00:00 +0000", None),
        (b"01-Jan-0001 00:00:00 +1200", None),
        (b"01-Jan-2026 00:00:00 +9900", None),
        (b"01-Foo-2026 00:00:00 +0000", None),
        (b"", None),
    ],
)
def test_dates_are_utc_or_none(text: bytes, when: datetime | None) -> None:
    assert internal_date(text) == when


def test_status_and_list_take_names_in_every_form() -> None:
    for name in (b'"a b"', b"{3}\r\na b"):
        assert status_items(data(b"* STATUS " + name + b" (MESSAGES 3 uidnext 4)")) == (
            b"a b",
            {b"MESSAGES": 3, b"UIDNEXT": 4},
        )
        assert list_items(data(b"* LIST (\\Sent) NIL " + name)) == ListItems(("\\Sent",), None, b"a b")
    assert list_items(data(b'* LIST () "\\\\" 123 ("CHILDINFO" ("SUBSCRIBED"))')) == ListItems(
        (), "\\", b"123"
    )


def test_numbers_before_words() -> None:
    assert numbered(data(b"* 12 exists")) == (b"EXISTS", 12)
    assert numbered(data(b"* FLAGS (a)")) is None
