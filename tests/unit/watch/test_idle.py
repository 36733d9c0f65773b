"""The dialogue of a session that waits for news, byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.wire.imap import Disconnected, ProtocolError
from tasks.wire.imap.idle import Idle, State


def idling() -> Idle:
    idle = Idle(idles=True)
    assert idle.begin() == b"I1 IDLE\r\n"
    idle.feed(b"+ idling\r\n")
    assert idle.state is State.IDLING
    return idle


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        (b"* 3 EXISTS\r\n", True),
        (b"* 3 exists\r\n", True),
        (b"* 2 EXPUNGE\r\n", True),
        (b"* 2 FETCH (FLAGS (\\Seen))\r\n", True),
        (b"* 2 FETCH (ENVELOPE ({5}\r\nEXISTS))\r\n", True),
        (b"* VANISHED 4:7\r\n", True),
        (b"* 0 RECENT\r\n", False),
        (b"* OK Still here\r\n", False),
        (b"* OK [HIGHESTMODSEQ 9]\r\n", False),
        (b"* FLAGS (EXISTS)\r\n", False),
        (b"* LIST () FETCH x\r\n", False),
        (b"*\r\n", False),
    ],
)
def test_what_is_news(line: bytes, changed: bool) -> None:
    heard = idling().feed(line)

    assert (heard.changed, heard.send, heard.ended) == (changed, b"", None)


@given(st.lists(st.integers(1, 40), max_size=12))
def test_news_are_heard_however_the_bytes_are_cut(cuts: list[int]) -> None:
    said = b"* OK Still here\r\n* 1 FETCH (X {9}\r\n* 1 EXPU)\r\n* 0 RECENT\r\n"
    idle, changed = idling(), False
    for cut in [*cuts, len(said)]:
        part, said = said[:cut], said[cut:]
        changed = changed or (bool(part) and idle.feed(part).changed)

    assert changed
    assert idle.state is State.IDLING


def test_an_idle_is_renewed_and_news_on_the_way_are_heard() -> None:
    idle = idling()

    assert idle.poke() == b"DONE\r\n"
    assert idle.waits
    heard = idle.feed(b"* 5 EXISTS\r\nI1 OK Idle completed\r\n")
    assert (heard.changed, heard.send) == (True, b"I2 IDLE\r\n")
    assert not idle.feed(b"+ idling\r\n").changed
    assert not idle.waits


@pytest.mark.parametrize("reply", [b"I1 BAD what?\r\n", b"I1 NO not now\r\n", b"I1 OK done\r\n"])
def test_a_server_that_cannot_idle_is_asked_with_noop(reply: bytes) -> None:
    idle = Idle(idles=True)
    idle.begin()

    assert idle.feed(reply).send == b""
    assert idle.poke() == b"I2 NOOP\r\n"
    assert idle.feed(b"* 1 EXISTS\r\nI2 OK\r\n").changed
    assert not idle.waits


def test_without_idle_nothing_is_said_at_first() -> None:
    idle = Idle(idles=False)

    assert idle.begin() == b""
    assert idle.poke() == b"I1 NOOP\r\n"


def test_a_bye_ends_the_session_with_the_news_before_it() -> None:
    heard = idling().feed(b"* 9 EXISTS\r\n* BYE [UNAVAILABLE] shutting down\r\n")

    assert heard.changed
    assert heard.ended is not None


def test_the_end_of_the_stream_and_endless_nonsense_end_the_session() -> None:
    assert isinstance(idling().feed(b"").ended, Disconnected)
    assert isinstance(idling().feed(b"\xff nonsense\r\n" * 101).ended, ProtocolError)
    assert isinstance(idling().feed(b"* 1 EXISTS" * 200_000).ended, ProtocolError)


def test_leaving_ends_the_idle_first() -> None:
    assert idling().leave() == b"DONE\r\nI2 LOGOUT\r\n"
    assert Idle(idles=False).leave() == b"I1 LOGOUT\r\n"
