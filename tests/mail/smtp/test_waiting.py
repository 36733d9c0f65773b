"""A server that drips, hangs or hangs up at any step is given up by the budget, with the right outcome."""

from collections.abc import Callable

import pytest

from lab.servers.certificates import Certificate
from lab.servers.smtp_faults import Close, Drip, Fault, FaultySmtp, Hang, Slow, Stall
from tasks.wire.net import Budget, Security
from tasks.wire.smtp import Envelope, Outcome, SessionFailed, SmtpSession, Stage

PATIENCE = 1.0
FAR = 1.0
ENVELOPE = Envelope("anna@example.org", ("ben@example.org",))
SMALL = b"Subject: hello\r\n\r\nhello\r\n"
LARGE = SMALL + (b"x" * 998 + b"\r\n") * 24_000
"""More than both kernels' buffers hold."""

Open = Callable[..., SmtpSession]

WAITS: list[Fault] = [Drip(0.05), Hang(), Stall()]
ALL_FAULTS: list[Fault] = [*WAITS, Close()]


def name(fault: object) -> str:
    return type(fault).__name__.lower()


@pytest.mark.parametrize("fault", ALL_FAULTS, ids=name)
@pytest.mark.parametrize("step", ["greeting", "ehlo", "starttls", "auth"])
def test_a_fault_while_opening_ends_it_within_the_budget(
    step: str, fault: Fault, certificate: Certificate, open_session: Open
) -> None:
    budget = Budget(PATIENCE)
    security = Security.STARTTLS if step == "starttls" else Security.NONE

    with FaultySmtp({step: fault}, certificate=certificate) as server, pytest.raises(SessionFailed) as failed:
        open_session(server, security, budget=budget)

    assert failed.value.stage is Stage(step)
    assert failed.value.step.value == step
    assert not failed.value.login_refused
    assert failed.value.remedy
    assert gave_up_in_time(budget.waited, fault)


@pytest.mark.parametrize("fault", ALL_FAULTS, ids=name)
@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
@pytest.mark.parametrize("security", [Security.NONE, Security.TLS])
def test_a_fault_before_the_content_defers(
    step: str, fault: Fault, security: Security, certificate: Certificate, open_session: Open
) -> None:
    tls = security is Security.TLS
    with FaultySmtp({step: fault}, certificate=certificate, tls=tls) as server:
        session = open_session(server, security)
        delivery = session.send(ENVELOPE, SMALL, Budget(PATIENCE))

    assert delivery.outcome is Outcome.DEFERRED
    assert delivery.recipients[0].outcome is Outcome.DEFERRED
    assert delivery.stage is Stage(step)
    assert gave_up_in_time(delivery.waited, fault)
    assert not session.usable
    assert server.accepted == []


@pytest.mark.parametrize("fault", [Slow(chunk=1, pause=0.05), Hang(), Close()], ids=name)
@pytest.mark.parametrize("security", [Security.NONE, Security.TLS])
def test_a_fault_within_the_content_defers(
    fault: Fault, security: Security, certificate: Certificate, open_session: Open
) -> None:
    tls = security is Security.TLS
    with FaultySmtp({"body": fault}, certificate=certificate, tls=tls, receive_buffer=4096) as server:
        session = open_session(server, security)
        delivery = session.send(ENVELOPE, LARGE, Budget(PATIENCE))

    assert delivery.outcome is Outcome.DEFERRED
    assert delivery.stage is Stage.DATA
    assert gave_up_in_time(delivery.waited, fault)
    assert not session.usable
    assert server.accepted == []


@pytest.mark.parametrize("fault", ALL_FAULTS, ids=name)
@pytest.mark.parametrize("security", [Security.NONE, Security.TLS])
def test_silence_after_the_dot_is_doubt(
    fault: Fault, security: Security, certificate: Certificate, open_session: Open
) -> None:
    tls = security is Security.TLS
    with FaultySmtp({"dot": fault}, certificate=certificate, tls=tls) as server:
        session = open_session(server, security)
        delivery = session.send(ENVELOPE, SMALL, Budget(PATIENCE))
        server.wait_accepted()

    assert delivery.outcome is Outcome.UNCERTAIN
    assert delivery.recipients[0].outcome is Outcome.UNCERTAIN
    assert delivery.stage is Stage.DOT
    assert delivery.reply is None
    assert gave_up_in_time(delivery.waited, fault)
    assert not session.usable
    assert [message.content for message in server.accepted] == [SMALL]


def test_a_slow_reader_does_not_use_up_the_budget(open_session: Open) -> None:
    """Our own bytes flow for longer than the budget allows to wait."""
    faults = {"body": Slow(chunk=262_144, pause=0.01)}
    with FaultySmtp(faults, receive_buffer=65_536) as server:
        session = open_session(server)
        begun = Budget(PATIENCE)
        delivery = session.send(ENVELOPE, LARGE, begun)

    assert delivery.outcome is Outcome.SENT
    assert delivery.waited < PATIENCE
    assert server.accepted[0].content == LARGE


def test_one_budget_serves_the_whole_dialogue(open_session: Open) -> None:
    """Each reply comes in less than the budget, all of them do not."""
    slow = Drip(0.02, endless=False)
    with FaultySmtp({"mail": slow, "rcpt": slow, "data": slow}) as server:
        session = open_session(server)
        delivery = session.send(ENVELOPE, SMALL, Budget(PATIENCE))

    assert delivery.outcome is Outcome.DEFERRED
    assert delivery.stage is not Stage.MAIL
    assert PATIENCE <= delivery.waited < PATIENCE + FAR


def gave_up_in_time(waited: float, fault: Fault) -> bool:
    return waited < PATIENCE if isinstance(fault, Close) else PATIENCE <= waited < PATIENCE + FAR
