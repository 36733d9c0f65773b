"""Replies are judged once, by their code, their stage and a few known words."""

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.wire.net import AnySocket
from tasks.wire.smtp import Outcome, Reply, Stage, classify, login_refused, retry_after
from tasks.wire.smtp.login import without_secrets
from tasks.wire.smtp.replies import DAY, LONGEST_LINE, MOST_LINES, Malformed, ReplyReader, reply_of

BEFORE_DOT = [stage for stage in Stage if stage is not Stage.DOT]


class Received:
    """What a socket would give, in these pieces, then the end."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def recv(self, size: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def reader(*pieces: bytes) -> ReplyReader:
    return ReplyReader(cast("AnySocket", Received(*pieces)))


@pytest.mark.parametrize("stage", BEFORE_DOT)
def test_silence_before_the_dot_defers(stage: Stage) -> None:
    assert classify(None, stage) is Outcome.DEFERRED


def test_silence_after_the_dot_is_doubt() -> None:
    assert classify(None, Stage.DOT) is Outcome.UNCERTAIN


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "stage", "outcome"),
    [
        (250, "2.0.0", "queued", Stage.DOT, Outcome.SENT),
        (251, None, "will forward", Stage.RCPT, Outcome.SENT),
        (354, None, "go on", Stage.DATA, Outcome.SENT),
        (250, None, "what?", Stage.DATA, Outcome.DEFERRED),
        (354, None, "what?", Stage.DOT, Outcome.UNCERTAIN),
        (354, None, "what?", Stage.MAIL, Outcome.DEFERRED),
        (421, "4.3.2", "closing", Stage.DOT, Outcome.DEFERRED),
        (450, "4.2.0", "greylisted", Stage.RCPT, Outcome.DEFERRED),
        (550, "5.1.1", "no such user", Stage.RCPT, Outcome.FAILED),
        (550, "5.7.1", "spam", Stage.DOT, Outcome.FAILED),
        (554, None, "refused", Stage.DOT, Outcome.FAILED),
        (503, "5.5.1", "nested MAIL", Stage.MAIL, Outcome.DEFERRED),
        (503, None, "Sender already specified", Stage.MAIL, Outcome.DEFERRED),
        (552, "5.5.3", "too many", Stage.RCPT, Outcome.DEFERRED),
        (552, None, "Too many recipients", Stage.RCPT, Outcome.DEFERRED),
        (552, "5.2.2", "mailbox full", Stage.RCPT, Outcome.FAILED),
        (552, "5.3.4", "message too big", Stage.DOT, Outcome.FAILED),
        (421, "4.7.0", "later", Stage.AUTH, Outcome.DEFERRED),
        (454, "4.7.0", "later", Stage.AUTH, Outcome.DEFERRED),
        (535, "5.7.8", "no", Stage.AUTH, Outcome.FAILED),
        (550, "5.4.5", "Daily user sending limit exceeded.", Stage.DOT, Outcome.DEFERRED),
        (550, "5.7.1", "Daily SMTP relay limit exceeded for user.", Stage.RCPT, Outcome.DEFERRED),
    ],
)
def test_a_reply_decides(code: int, enhanced: str | None, text: str, stage: Stage, outcome: Outcome) -> None:
    assert classify(Reply(code, enhanced, text), stage) is outcome


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        (Reply(550, "5.4.5", "Daily user sending limit exceeded."), DAY),
        (Reply(550, "5.7.1", "Daily SMTP relay limit exceeded for user."), DAY),
        (Reply(450, "4.2.0", "Greylisted, please try again in 300 seconds"), 300),
        (Reply(451, "4.7.1", "Greylisting in action, please come back in 5 minutes"), 300),
        (Reply(451, None, "try again in 99999 minutes"), DAY),
        (Reply(451, None, "local error"), None),
        (Reply(550, "5.1.1", "no such user, wait 5 minutes"), None),
        (None, None),
    ],
)
def test_a_reply_may_say_when_to_come_back(reply: Reply | None, seconds: float | None) -> None:
    assert retry_after(reply, Stage.RCPT) == seconds


def test_only_a_refused_login_is_a_refused_login() -> None:
    assert login_refused(Reply(535, "5.7.8", "no"), Stage.AUTH)
    assert login_refused(Reply(534, "5.7.9", "Application-specific password required"), Stage.AUTH)
    assert not login_refused(Reply(454, "4.7.0", "later"), Stage.AUTH)
    assert not login_refused(Reply(535, None, "no"), Stage.MAIL)
    assert not login_refused(None, Stage.AUTH)


def test_a_reply_is_read_however_it_is_cut() -> None:
    whole = b"250-2.1.0 one\r\n250 2.1.0 two\r\n354 go\r\n"
    for cut in range(len(whole)):
        replies = reader(*[piece for piece in (whole[:cut], whole[cut:]) if piece])
        assert reply_of(*replies.read()) == Reply(250, "2.1.0", "one two")
        assert replies.buffered or cut == len(whole) - 8
        assert reply_of(*replies.read()) == Reply(354, None, "go")
        assert not replies.buffered
        with pytest.raises(EOFError):
            replies.read()


@pytest.mark.parametrize("raw", [b"250\r\n", b"250 \r\n", b"250\n"])
def test_a_reply_needs_no_words(raw: bytes) -> None:
    assert reply_of(*reader(raw).read()) == Reply(250, None, "")


@pytest.mark.parametrize(
    "raw",
    [
        b"hi\r\n", b"25\r\n", b"2500\r\n", b"199 x\r\n", b"600 x\r\n", b"-50 x\r\n", b"250-a\r\n550 b\r\n",
        b"250 " + b"x" * LONGEST_LINE + b"\r\n", b"2" * 3 * LONGEST_LINE, b"250-x\r\n" * (MOST_LINES + 1),
    ],
)  # fmt: skip
def test_junk_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        reader(raw).read()


@given(st.lists(st.binary(min_size=1)))
def test_any_bytes_are_a_reply_or_a_known_error(pieces: list[bytes]) -> None:
    try:
        reply = reply_of(*reader(*pieces).read())
    except (Malformed, EOFError):
        return
    assert 200 <= reply.code <= 599
    assert reply.text == "" or reply.text.isprintable()


@given(st.binary())
def test_kept_text_is_bounded_and_shows_nothing_but_itself(raw: bytes) -> None:
    text = reply_of(250, [raw] * 50).text

    assert len(text) <= 1000
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in text)


def test_words_without_the_secret_are_kept() -> None:
    reply = Reply(535, "5.7.8", "Username and Password not accepted")

    assert without_secrets(reply, ("correct horse", "")) == reply


def test_words_with_a_part_of_the_secret_are_dropped() -> None:
    for text in ("bad: correct horse", "bad: CORRECT h…", "bad: cor rect", "bad: ct horse!"):
        assert without_secrets(Reply(535, None, text), ("correct horse",)).text == ""
    assert without_secrets(Reply(535, None, "bad: abc"), ("abc",)).text == ""
