"""What a server takes the dots away from is the message, with CRLF at every line end."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from tasks.wire.smtp.content import normalised, stuffed

lines = st.lists(st.sampled_from([b".", b"..", b"\r", b"\n", b"\r\n", b"a", b"\x00", b"\xff", b" "])).map(
    b"".join
)


def unstuffed(wire: bytes) -> bytes:
    """RFC 5321 §4.5.2 as a receiver obeys it: read lines to the single dot, take a leading dot away."""
    taken = []
    for line in wire.split(b"\r\n"):
        if line == b".":
            return b"".join(each + b"\r\n" for each in taken)
        taken.append(line.removeprefix(b"."))
    raise AssertionError("the dot is missing")


@given(lines | st.binary())
@example(b"")
@example(b".")
@example(b".\n.\r.\r\n.")
@example(b"a\r\r\n.\r\n")
@example(b"\n.\r\n")
def test_the_receiver_has_the_normalised_message(content: bytes) -> None:
    message = normalised(content)

    assert unstuffed(stuffed(message) + b".\r\n") == message


@given(lines | st.binary())
def test_every_line_end_becomes_crlf_and_nothing_else_changes(content: bytes) -> None:
    message = normalised(content)

    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", message)
    assert not message or message.endswith(b"\r\n")
    expected = re.split(rb"\r\n|\r|\n", content)
    assert message.split(b"\r\n")[: len(expected)] == expected
    assert normalised(message) == message


@given(lines | st.binary())
def test_no_line_on_the_wire_is_a_lone_dot(content: bytes) -> None:
    assert b"." not in re.split(rb"\r\n|\r|\n", stuffed(normalised(content)))
