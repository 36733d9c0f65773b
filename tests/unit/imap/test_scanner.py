"""Bytes in, events out, however they are cut."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.wire.imap.errors import ProtocolError
from tasks.wire.imap.scanner import MAX_LINE, Continuation, Data, Event, Junk, Literal, Scanner, Status

CAP = 50

literals = st.builds(
    lambda body, mark: mark % len(body) + b"\r\n" + body,
    st.binary(max_size=2 * CAP),
    st.sampled_from([b"{%d}", b"~{%d}", b"{%d+}"]),
)
texts = st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"").replace(b"}", b""))
lines = st.one_of(
    st.lists(st.one_of(texts, literals), max_size=5).map(
        lambda bits: b"* 1 FETCH (" + b" ".join(bits) + b")\r\n"
    ),
    texts.map(lambda text: b"* OK " + text + b" {7}\r\n"),
    texts.map(lambda text: text + b"\r\n"),
    st.sampled_from(
        [b"+ go\r\n", b"W1 OK [X 1] fine\r\n", b"* BYE\r\n", b"\xff\xfe\n", b"* OK [HIGHESTMODSEQ 7]\r\n"]
    ),
)


def events(pieces: list[bytes]) -> list[Event | str]:
    """All events of a stream that comes in ``pieces``, ended by an error's text if there is one."""
    scanner, found = Scanner(max_literal=CAP), []
    for piece in pieces:
        scanner.feed(piece)
        try:
            while (event := scanner.next_event()) is not None:
                found.append(event)
        except ProtocolError as error:
            return [*found, str(error)]
    return found


@given(st.lists(lines, max_size=8).map(b"".join), st.lists(st.integers(0, 600), max_size=30))
@example(b"* 1 FETCH (BODY[] {51}\r\n" + b"x" * 51 + b" UID 3)\r\nW1 OK\r\n", list(range(90)))
def test_cutting_the_same_bytes_otherwise_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[a:b] for a, b in pairwise(places)]

    assert events(pieces) == events([stream])
    assert events([bytes([byte]) for byte in stream]) == events([stream])


@given(st.binary(max_size=300))
def test_any_bytes_are_events_or_a_protocol_error(stream: bytes) -> None:
    events([stream])


def test_literals_are_passed_over_unread() -> None:
    body = b"* BYE\r\nW1 OK {3}\r\n"
    stream = b"* 2 FETCH (UID 5 BODY[] {%d}\r\n%s FLAGS ())\r\n" % (len(body), body)

    assert events([stream]) == [Data((b"2 FETCH (UID 5 BODY[] ", Literal(body, len(body)), b" FLAGS ())"))]


def test_a_literal_over_the_cap_is_let_pass_unheld() -> None:
    scanner = Scanner(max_literal=10)
    scanner.feed(b"* 1 FETCH (BODY[] {1000000}\r\n")
    for _ in range(100):
        assert scanner.next_event() is None
        assert scanner.buffered == 0
        scanner.feed(b"y" * 10_000)
    scanner.feed(b")\r\n")

    assert scanner.next_event() == Data((b"1 FETCH (BODY[] ", Literal(None, 1_000_000), b")"))


def test_the_cap_is_of_one_response_in_all() -> None:
    stream = b"* 1 FETCH (A {30}\r\n" + b"a" * 30 + b" B {30}\r\n" + b"b" * 30 + b")\r\n"

    (event,) = events([stream])

    assert isinstance(event, Data)
    assert [part.size for part in event.parts if isinstance(part, Literal) and part.data is None] == [30]


def test_marks_of_literals_in_human_text_are_only_text() -> None:
    assert events([b"* OK [ALERT] cost {5}\r\nW1 NO {6}\r\n+ {7}\r\njunk {8}\r\n"]) == [
        Status(b"*", "OK", "ALERT", b"", b"cost {5}"),
        Status(b"W1", "NO", "", b"", b"{6}"),
        Continuation(b"{7}"),
        Junk(b"junk {8}"),
    ]


def test_a_code_needs_no_text_after_it() -> None:
    assert events([b"* OK [HIGHESTMODSEQ 12]\r\n"]) == [Status(b"*", "OK", "HIGHESTMODSEQ", b"12", b"")]


def test_a_line_without_end_is_an_error() -> None:
    scanner = Scanner()
    scanner.feed(b"* " + b"x" * MAX_LINE)

    with pytest.raises(ProtocolError, match="line of more than"):
        scanner.next_event()


def test_an_absurd_literal_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="4 GiB"):
        scanner_of(b"* 1 FETCH (BODY[] {99999999999}\r\n").next_event()


def test_literals_without_end_are_an_error() -> None:
    with pytest.raises(ProtocolError, match="100 literals"):
        scanner_of(b"* 1 FETCH (A " + b"{0}\r\n " * 200).next_event()


def scanner_of(stream: bytes) -> Scanner:
    """A scanner fed with ``stream``."""
    scanner = Scanner()
    scanner.feed(stream)
    return scanner
