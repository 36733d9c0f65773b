"""What a server's words mean."""

import pytest

from tasks.wire.imap.errors import (
    CommandRefused,
    Disconnected,
    LoginRefused,
    ServerBusy,
    clean,
    farewell,
    login_error,
    refusal,
)


@pytest.mark.parametrize(
    ("kind", "code", "words", "error"),
    [
        ("NO", "AUTHENTICATIONFAILED", "Too many failed logins, try again later", LoginRefused),
        ("NO", "", "LOGIN failed.", LoginRefused),
        ("NO", "ALERT", "Invalid credentials (Failure)", LoginRefused),
        ("NO", "ALERT", "Too many simultaneous connections. (Failure)", ServerBusy),
        ("NO", "UNAVAILABLE", "Internal error", ServerBusy),
        ("NO", "LIMIT", "nope", ServerBusy),
        ("NO", "", "Maximum number of connections from user+IP exceeded", ServerBusy),
        ("BAD", "", "Unknown command", CommandRefused),
    ],
)
def test_a_refused_login_is_told_from_a_busy_server(kind: str, code: str, words: str, error: type) -> None:
    assert type(login_error(kind, code, words)) is error


def test_a_farewell_may_mean_later() -> None:
    assert type(farewell("", "Server shutting down.")) is Disconnected
    assert type(farewell("", "Too many connections")) is ServerBusy
    assert type(refusal("FETCH", "", "Account is throttled")) is ServerBusy


def test_words_are_one_bounded_line() -> None:
    assert clean(b"a\x1b[31m\r\nb\xff\x00 \xe2\x80\xae c") == "a [31m b\ufffd c"
    assert len(clean("x" * 10_000)) == 300
