"""Every class of reply at every step, and every state: each from a server that really answers so."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import pytest

from lab.servers.smtp_faults import Answer, Close, Fault, Faults, Hang, Stall
from schema.tables.outbound import State
from tasks import outbound
from tasks.access import SYSTEM
from tests.mail.outbound.conftest import Post

Make = Callable[..., Post]

ANSWERS: Final[dict[str, Fault]] = {
    "2yz": Answer(b"250 2.0.0 fine\r\n"),
    "3yz": Answer(b"354 go ahead\r\n"),
    "4yz": Answer(b"451 4.3.0 later\r\n"),
    "421": Answer(b"421 4.3.2 going down\r\n", close=True),
    "5yz": Answer(b"550 5.7.1 never\r\n"),
    "503": Answer(b"503 5.5.1 bad sequence\r\n"),
    "day": Answer(b"550 5.4.5 Daily user sending limit exceeded\r\n"),
    "junk": Answer(b"\xff\xfe\r\n"),
    "half": Stall(),
    "silence": Hang(),
    "hang up": Close(),
    "reset": Close(reset=True),
}
LOST: Final = ("junk", "half", "silence", "hang up", "reset")
"""What is no reply."""
LATER: Final = ("4yz", "421", "503", "day")

BEFORE_MAIL: Final = [
    (step, answer) for step in ("greeting", "ehlo", "auth") for answer in ("4yz", "421", "5yz", "503", *LOST)
]
"""Steps at which no session comes about."""

JUDGED: Final = [
    *((step, answer, State.DEFERRED) for step in ("mail", "rcpt", "data") for answer in LOST),
    *((step, answer, State.DEFERRED) for step in ("mail", "rcpt") for answer in ("3yz", *LATER)),
    *(("data", answer, State.DEFERRED) for answer in ("2yz", *LATER)),
    *((step, "5yz", State.FAILED) for step in ("mail", "rcpt", "data", "dot")),
    *(("dot", answer, State.DEFERRED) for answer in LATER),
    *(("dot", answer, State.UNCERTAIN) for answer in ("3yz", *LOST)),
    ("dot", "2yz", State.SENT),
    ("rcpt", "2yz", State.SENT),
    ("mail", "2yz", State.SENT),
    ("data", "3yz", State.SENT),
]


@pytest.mark.parametrize(("step", "answer"), BEFORE_MAIL)
def test_where_no_session_comes_about_the_message_waits_and_spends_no_attempt(
    post: Make, step: str, answer: str
) -> None:
    mail = post({step: ANSWERS[answer]}, smtp_timeout=1)
    uid = mail.enqueue()

    mail.dispatch()

    shown = mail.show(uid)
    assert (shown["state"], shown["attempts"]) == ("queued", [])
    assert shown["waits_for"]
    assert mail.sql("SELECT next_due_at > now() FROM mailwright.outbox_lanes")
    assert not mail.server.accepted


@pytest.mark.parametrize(("step", "answer", "state"), JUDGED)
def test_the_answer_decides_what_becomes_of_the_message(
    post: Make, step: str, answer: str, state: State
) -> None:
    mail = post({step: [ANSWERS[answer]]}, smtp_timeout=1)
    uid = mail.enqueue()

    mail.dispatch()

    shown = mail.show(uid)
    assert shown["state"] == state
    (attempt,) = shown["attempts"]
    assert attempt["outcome"] == state
    fault, told = ANSWERS[answer], [(each["step"], each["code"]) for each in attempt["dialogue"]]
    if isinstance(fault, Answer) and answer not in LOST:
        assert (step, int(fault.raw[:3])) in told
    else:
        assert told[-1][1] is None
    assert mail.events(uid)[1] == f"outbound.{state}"
    assert (shown["ended_at"] is not None) == (state in (State.SENT, State.FAILED))
    assert (shown["due_at"] is not None and shown["due_at"] > datetime.now(UTC)) == (state is State.DEFERRED)


def queued(post: Make) -> tuple[Post, UUID]:
    return tried(post, {"greeting": Answer(b"554 5.3.2 no mail here\r\n")})


def sent(post: Make) -> tuple[Post, UUID]:
    return tried(post)


def deferred(post: Make) -> tuple[Post, UUID]:
    return tried(post, {"rcpt": ANSWERS["4yz"]})


def failed(post: Make) -> tuple[Post, UUID]:
    return tried(post, {"dot": ANSWERS["5yz"]})


def uncertain(post: Make) -> tuple[Post, UUID]:
    return tried(post, {"dot": Close()})


def held(post: Make) -> tuple[Post, UUID]:
    mail, uid = deferred(post)
    with mail.runtime.db.begin() as session:
        outbound.hold(SYSTEM, session, uid)
    return mail, uid


def cancelled(post: Make) -> tuple[Post, UUID]:
    mail, uid = deferred(post)
    with mail.runtime.db.begin() as session:
        outbound.cancel(SYSTEM, session, uid)
    return mail, uid


def expired(post: Make) -> tuple[Post, UUID]:
    """Deferred until its time was over."""
    mail, uid = deferred(post)
    mail.sql("UPDATE mailwright.outbox SET expires_at = now()")
    mail.due_again()
    mail.dispatch()
    return mail, uid


def tried(post: Make, faults: Faults | None = None) -> tuple[Post, UUID]:
    mail = post(faults)
    uid = mail.enqueue()
    mail.dispatch()
    return mail, uid


COMES_TO: Final = {
    each.__name__: each for each in (queued, sent, deferred, failed, uncertain, held, cancelled, expired)
}


@pytest.mark.parametrize("state", sorted(set(State) - {State.ARMED}))
def test_every_state_is_come_to_at_a_server(post: Make, state: State) -> None:
    mail, uid = COMES_TO[state](post)

    assert mail.state(uid) == state


def test_a_message_is_armed_while_its_server_has_the_word(post: Make) -> None:
    mail, seen = post(), list[tuple[str, str]]()
    uid = mail.enqueue()
    original = mail.server.fault
    mail.server.fault = lambda step: seen.append((step, mail.state(uid))) or original(step)  # type: ignore[func-returns-value, method-assign]

    mail.dispatch()

    states = dict(seen)
    assert (states["greeting"], states["data"], states["dot"]) == ("queued", "armed", "armed")
    assert mail.state(uid) == "sent"
