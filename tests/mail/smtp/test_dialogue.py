"""What a session says and how it judges what it hears, against the misbehaving server."""

import re
from collections.abc import Callable

import pytest

from config.sockets import readable
from lab.ports import wait_until
from lab.servers.certificates import Certificate
from lab.servers.smtp_faults import EXTENSIONS, Answer, Close, Endless, FaultySmtp, Hang, Inject
from tasks.wire.net import Budget, CertificateFault, Endpoint, Security, Step, TlsFailed
from tasks.wire.smtp import (
    Delivery,
    Envelope,
    Notify,
    Outcome,
    Reports,
    SessionFailed,
    SmtpSession,
    Stage,
)

Open = Callable[..., SmtpSession]

BEN = Envelope("anna@example.org", ("ben@example.org",))
THREE = Envelope("anna@example.org", ("ben@example.org", "cem@example.org", "dora@example.org"))
MESSAGE = b"Subject: hello\r\n\r\nhello\r\n"


def send(session: SmtpSession, envelope: Envelope = BEN, content: bytes = MESSAGE) -> Delivery:
    return session.send(envelope, content, Budget(20))


@pytest.mark.parametrize("security", list(Security))
def test_many_messages_go_over_one_connection(
    security: Security, certificate: Certificate, open_session: Open
) -> None:
    with FaultySmtp(certificate=certificate, tls=security is Security.TLS) as server:
        session = open_session(server, security)
        deliveries = [send(session) for _ in range(3)]
        assert session.usable
        session.close()

    assert [delivery.outcome for delivery in deliveries] == [Outcome.SENT] * 3
    assert server.connections == 1
    assert server.commands[-1] == b"QUIT"
    assert {message.content for message in server.accepted} == {MESSAGE}


def test_the_steps_are_told_in_order(certificate: Certificate) -> None:
    told: list[tuple[str, float]] = []
    with FaultySmtp(certificate=certificate) as server:
        where = Endpoint("localhost", server.port, Security.STARTTLS, certificate.ca_file.read_text())
        SmtpSession.open(
            where, "a", "b", Budget(20), steps=lambda step, took: told.append((step, took))
        ).close()

    assert [step for step, _ in told] == [
        "resolve",
        "connect",
        "greeting",
        "ehlo",
        "starttls",
        "ehlo",
        "auth",
    ]
    assert all(took >= 0 for _, took in told)


def test_each_exchange_of_a_message_is_told_with_its_code(
    certificate: Certificate, open_session: Open
) -> None:
    refusals = [None, None, Answer(b"550 5.1.1 nobody\r\n")]
    with FaultySmtp(
        {"rcpt": refusals, "dot": [Answer(b"451 4.3.0 later\r\n")]}, certificate=certificate
    ) as server:
        session = open_session(server, Security.STARTTLS)
        first, second = send(session, THREE), send(session)

    told = [(each.step, each.code, each.times) for each in first.dialogue]
    assert told == [
        ("resolve", None, 1),
        ("connect", None, 1),
        ("greeting", 220, 1),
        ("ehlo", 250, 1),
        ("starttls", 220, 1),
        ("ehlo", 250, 1),
        ("auth", 235, 1),
        ("mail", 250, 1),
        ("rcpt", 250, 2),
        ("rcpt", 550, 1),
        ("data", 354, 1),
        ("content", None, 1),
        ("dot", 451, 1),
        ("rset", 250, 1),
    ]
    assert [(each.step, each.code) for each in second.dialogue] == [
        ("mail", 250), ("rcpt", 250), ("data", 354), ("content", None), ("dot", 250)
    ]  # fmt: skip


def test_the_wait_in_vain_is_the_last_exchange_that_is_told(open_session: Open) -> None:
    with FaultySmtp({"dot": Hang()}) as server:
        delivery = open_session(server).send(BEN, MESSAGE, Budget(0.5))

    last = delivery.dialogue[-1]
    assert (last.step, last.code) == ("dot", None)
    assert 400 <= last.ms < 5_000


def test_size_and_body_are_declared(open_session: Open) -> None:
    with FaultySmtp() as server:
        send(open_session(server), Envelope("a@b.example", ("c@d.example",), eight_bit=True), b"a\n\xe4\n")

    assert b"MAIL FROM:<a@b.example> SIZE=6 BODY=8BITMIME" in server.commands
    assert server.accepted[0].content == b"a\r\n\xe4\r\n"


@pytest.mark.parametrize(
    ("reports", "mail", "rcpt"),
    [
        (Reports(), b"RET=HDRS", b"NOTIFY=FAILURE ORCPT=rfc822;a+2Bb+3Dc@d.example"),
        (
            Reports(frozenset(Notify), envelope_id="id=1 +", whole=True),
            b"RET=FULL ENVID=id+3D1+20+2B",
            b"NOTIFY=DELAY,FAILURE,SUCCESS ORCPT=rfc822;a+2Bb+3Dc@d.example",
        ),
        (Reports(frozenset()), b"RET=HDRS", b"NOTIFY=NEVER ORCPT=rfc822;a+2Bb+3Dc@d.example"),
    ],
)
def test_delivery_reports_are_asked_for_where_they_are_offered(
    reports: Reports, mail: bytes, rcpt: bytes, open_session: Open
) -> None:
    with FaultySmtp(extensions=["DSN"]) as server:
        delivery = send(
            open_session(server), Envelope("anna@example.org", ("a+b=c@d.example",), reports=reports)
        )

    assert delivery.outcome is Outcome.SENT
    assert b"MAIL FROM:<anna@example.org> " + mail in server.commands
    assert b"RCPT TO:<a+b=c@d.example> " + rcpt in server.commands


def test_delivery_reports_are_not_spoken_of_where_they_are_not_offered(open_session: Open) -> None:
    with FaultySmtp(extensions=[]) as server:
        send(open_session(server), Envelope("a@b.example", ("c@d.example",), reports=Reports()))

    assert b"MAIL FROM:<a@b.example>" in server.commands
    assert b"RCPT TO:<c@d.example>" in server.commands


def test_a_recipient_in_utf8_is_reported_on_without_its_original_name(open_session: Open) -> None:
    with FaultySmtp(extensions=["DSN", "SMTPUTF8"]) as server:
        send(open_session(server), Envelope("a@b.example", ("jürgen@d.example",), reports=Reports()))

    assert "RCPT TO:<jürgen@d.example> NOTIFY=FAILURE".encode() in server.commands


def test_a_message_larger_than_announced_fails_without_a_word(open_session: Open) -> None:
    with FaultySmtp(extensions=["SIZE 20"]) as server:
        session = open_session(server)
        delivery = send(session)
        assert delivery.outcome is Outcome.FAILED
        assert "20" in delivery.reason
        assert session.usable

    assert not any(line.startswith(b"MAIL") for line in server.commands)


def test_utf8_where_it_is_not_offered_fails_without_a_word(open_session: Open) -> None:
    with FaultySmtp(extensions=[line for line in EXTENSIONS if line != "SMTPUTF8"]) as server:
        delivery = send(open_session(server), Envelope("anna@example.org", ("jürgen@example.org",)))

    assert delivery.outcome is Outcome.FAILED
    assert "SMTPUTF8" in delivery.reason
    assert not any(line.startswith(b"MAIL") for line in server.commands)


def test_utf8_where_it_is_offered_is_declared(open_session: Open) -> None:
    with FaultySmtp() as server:
        delivery = send(open_session(server), Envelope("anna@example.org", ("jürgen@example.org",)))

    assert delivery.outcome is Outcome.SENT
    assert any(line.endswith(b" SMTPUTF8") for line in server.commands)


@pytest.mark.parametrize("extensions", [EXTENSIONS, ()], ids=["pipelined", "one by one"])
def test_each_recipient_has_its_own_outcome(extensions: tuple[str, ...], open_session: Open) -> None:
    faults = {
        "rcpt": [Answer(b"550 5.1.1 No such user\r\n"), None, Answer(b"450 4.2.0 Greylisted\r\n")],
    }
    with FaultySmtp(faults, extensions=extensions) as server:
        delivery = send(open_session(server), THREE)

    assert [result.outcome for result in delivery.recipients] == [
        Outcome.FAILED,
        Outcome.SENT,
        Outcome.DEFERRED,
    ]
    assert delivery.recipients[0].reply is not None
    assert delivery.recipients[0].reply.enhanced == "5.1.1"
    assert delivery.outcome is Outcome.SENT
    assert server.accepted[0].recipients == ("cem@example.org",)


def test_a_refusal_at_rcpt_stands_when_the_end_is_lost(open_session: Open) -> None:
    faults = {"rcpt": [Answer(b"550 5.1.1 No such user\r\n")], "dot": Close()}
    with FaultySmtp(faults) as server:
        delivery = send(open_session(server), THREE)

    assert delivery.outcome is Outcome.UNCERTAIN
    assert [result.outcome for result in delivery.recipients] == [
        Outcome.FAILED,
        Outcome.UNCERTAIN,
        Outcome.UNCERTAIN,
    ]


@pytest.mark.parametrize(
    ("step", "raw", "outcome"),
    [
        ("mail", b"550 5.7.1 no\r\n", Outcome.FAILED),
        ("mail", b"451 4.3.0 later\r\n", Outcome.DEFERRED),
        ("mail", b"503 5.5.1 nested MAIL\r\n", Outcome.DEFERRED),
        ("rcpt", b"550 5.1.1 no such user\r\n", Outcome.FAILED),
        ("data", b"554 5.5.1 no valid recipients\r\n", Outcome.FAILED),
        ("data", b"451 4.3.0 later\r\n", Outcome.DEFERRED),
        ("dot", b"550 5.7.1 spam\r\n", Outcome.FAILED),
        ("dot", b"550 5.4.5 Daily user sending limit exceeded\r\n", Outcome.DEFERRED),
        ("dot", b"452 4.3.1 disk full\r\n", Outcome.DEFERRED),
    ],
)
def test_a_refused_message_leaves_the_connection_clean(
    step: str, raw: bytes, outcome: Outcome, open_session: Open
) -> None:
    with FaultySmtp({step: [Answer(raw)]}) as server:
        session = open_session(server)
        refused = send(session)
        assert session.usable
        assert send(session).outcome is Outcome.SENT

    assert refused.outcome is outcome
    assert refused.recipients[0].outcome is outcome
    assert refused.stage is Stage(step)
    assert b"RSET" in server.commands
    assert len(server.accepted) == 1


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot", "rset"])
def test_421_ends_the_connection(step: str, open_session: Open) -> None:
    faults = {step: Answer(b"421 4.3.2 going down\r\n", close=True)}
    if step == "rset":
        faults["mail"] = Answer(b"451 4.3.0 later\r\n")
    with FaultySmtp(faults) as server:
        session = open_session(server)
        delivery = send(session)

        assert delivery.outcome is Outcome.DEFERRED
        assert delivery.recipients[0].outcome is Outcome.DEFERRED
        assert not session.usable


def test_a_server_that_hung_up_meanwhile_is_noticed(open_session: Open) -> None:
    with FaultySmtp({"rset": Close(), "dot": [Answer(b"250 ok\r\n", close=True)]}) as server:
        session = open_session(server)
        assert send(session).outcome is Outcome.SENT
        again = send(session)

    assert again.outcome is Outcome.DEFERRED
    assert not session.usable


JUNK = [
    b"hello\r\n",
    b"\xff\xfe\xfd\r\n",
    b"2 50 ok\r\n",
    b"999 ok\r\n",
    b"25\r\n",
    b"250-one\r\n251 two\r\n",
    b"\r\n",
    b"250" + b"x" * 9 + b"\r\n",
]


@pytest.mark.parametrize("fault", [*(Answer(raw) for raw in JUNK), Endless(), Endless(b"2" * 1000)])
@pytest.mark.parametrize(
    ("step", "outcome"), [("mail", Outcome.DEFERRED), ("data", Outcome.DEFERRED), ("dot", Outcome.UNCERTAIN)]
)
def test_junk_is_a_lost_connection(
    step: str, outcome: Outcome, fault: Answer | Endless, open_session: Open
) -> None:
    with FaultySmtp({step: fault}) as server:
        session = open_session(server)
        delivery = send(session)
        assert not session.usable

    assert delivery.outcome is outcome
    assert delivery.reply is None


@pytest.mark.parametrize("fault", [Answer(b"\xff\r\n"), Endless(), Endless(b"2" * 1000)])
@pytest.mark.parametrize("step", ["greeting", "ehlo", "auth"])
def test_junk_while_opening_ends_it(step: str, fault: Answer | Endless, open_session: Open) -> None:
    with FaultySmtp({step: fault}) as server, pytest.raises(SessionFailed) as failed:
        open_session(server)

    assert failed.value.stage is Stage(step)


def test_8bit_words_in_a_reply_are_shown_safely(open_session: Open) -> None:
    with FaultySmtp({"dot": Answer(b"550 5.7.1 Unerw\xfcnscht \x1b[31m\xe2\x80\xaenow\r\n")}) as server:
        delivery = send(open_session(server))

    assert delivery.reply is not None
    assert delivery.reply.text == "Unerw\ufffdnscht [31m now"


def test_a_withheld_dot_defers_and_nothing_is_accepted(open_session: Open) -> None:
    calls: list[str] = []
    with FaultySmtp() as server:
        session = open_session(server)
        delivery = session.send(
            BEN,
            MESSAGE,
            Budget(20),
            before_data=lambda: calls.append("data"),
            before_dot=lambda: bool(calls.append("dot")),
        )
        assert not session.usable

    assert calls == ["data", "dot"]
    assert delivery.outcome is Outcome.DEFERRED
    assert server.accepted == []


def test_before_data_is_not_called_where_nobody_was_accepted(open_session: Open) -> None:
    calls: list[str] = []
    with FaultySmtp({"rcpt": Answer(b"550 5.1.1 no\r\n")}, extensions=()) as server:
        open_session(server).send(BEN, MESSAGE, Budget(20), before_data=lambda: calls.append("data"))

    assert calls == []
    assert b"DATA" not in server.commands


def test_data_goes_along_with_the_envelope_where_that_is_offered_and_is_told_before(
    open_session: Open,
) -> None:
    said: list[list[bytes]] = []
    with FaultySmtp({"rcpt": [Answer(b"550 5.1.1 no\r\n")]}) as server:
        session = open_session(server)
        spoken = len(server.commands)
        refused = session.send(
            BEN, MESSAGE, Budget(20), before_data=lambda: said.append(server.commands[spoken:])
        )
        assert session.usable
        again = send(session)

    assert said == [[]]
    assert [line.split()[0] for line in server.commands[spoken : spoken + 4]] == [
        b"MAIL",
        b"RCPT",
        b"DATA",
        b"RSET",
    ]
    assert refused.outcome is Outcome.FAILED
    assert again.outcome is Outcome.SENT


def test_a_server_that_wants_content_for_nobody_gets_none(open_session: Open) -> None:
    """DATA went along with a recipient that was refused; a dot now would be a message to nobody."""
    faults = {"rcpt": Answer(b"550 5.1.1 no\r\n"), "data": Answer(b"354 go on\r\n")}
    with FaultySmtp(faults) as server:
        session = open_session(server)
        delivery = send(session)
        assert not session.usable

    assert delivery.outcome is Outcome.FAILED
    assert delivery.recipients[0].reply is not None
    assert delivery.recipients[0].reply.code == 550
    assert server.accepted == []


def test_what_a_hook_raises_passes_through_and_no_data_was_sent(open_session: Open) -> None:
    def lease_lost() -> None:
        raise KeyError("lease")

    with FaultySmtp() as server:
        session = open_session(server)
        with pytest.raises(KeyError):
            session.send(BEN, MESSAGE, Budget(20), before_data=lease_lost)
        assert not session.usable

    assert b"DATA" not in server.commands


def test_a_refusal_spoken_into_the_content_counts(open_session: Open) -> None:
    """The server answers while we write: the dot is withheld, its words decide."""
    with FaultySmtp({"body": Answer(b"552 5.3.4 Message too big\r\n")}) as server:
        session = open_session(server)

        def server_has_spoken() -> bool:
            wait_until(
                lambda: session._reader.buffered or readable(session._reader.sock.fileno()), 10, "the refusal"
            )
            return True

        delivery = session.send(BEN, MESSAGE, Budget(20), before_dot=server_has_spoken)

    assert delivery.outcome is Outcome.FAILED
    assert delivery.reply is not None
    assert delivery.reply.code == 552
    assert server.accepted == []


def test_stripped_starttls_is_a_failure_and_no_password_leaves(
    certificate: Certificate, open_session: Open
) -> None:
    with (
        FaultySmtp(certificate=certificate, strip_starttls=True) as server,
        pytest.raises(SessionFailed, match="does not offer STARTTLS") as failed,
    ):
        open_session(server, Security.STARTTLS)

    assert failed.value.stage is Stage.STARTTLS
    assert failed.value.permanent
    assert [line.split()[0] for line in server.commands] == [b"EHLO"]


def test_refused_starttls_is_a_failure_and_no_password_leaves(
    certificate: Certificate, open_session: Open
) -> None:
    faults = {"starttls": Answer(b"454 4.7.0 TLS not available\r\n")}
    with FaultySmtp(faults, certificate=certificate) as server, pytest.raises(SessionFailed) as failed:
        open_session(server, Security.STARTTLS)

    assert failed.value.stage is Stage.STARTTLS
    assert not failed.value.permanent
    assert [line.split()[0] for line in server.commands] == [b"EHLO", b"STARTTLS"]


def test_injected_plaintext_is_an_error(certificate: Certificate, open_session: Open) -> None:
    with (
        FaultySmtp({"starttls": Inject()}, certificate=certificate) as server,
        pytest.raises(SessionFailed, match="plaintext after agreeing to STARTTLS") as failed,
    ):
        open_session(server, Security.STARTTLS)

    assert failed.value.stage is Stage.STARTTLS
    assert [line.split()[0] for line in server.commands] == [b"EHLO", b"STARTTLS"]


def test_features_are_learned_again_after_starttls(certificate: Certificate, open_session: Open) -> None:
    with FaultySmtp(
        {"ehlo": [Answer(b"250-x\r\n250-SIZE 5\r\n250 STARTTLS\r\n")]}, certificate=certificate
    ) as server:
        session = open_session(server, Security.STARTTLS)

    assert session.features.size == 52_428_800
    assert session.features.pipelining


def test_a_certificate_of_another_name_is_refused(
    certificate: Certificate, other_certificate: Certificate
) -> None:
    with (
        FaultySmtp(certificate=other_certificate, tls=True) as server,
        pytest.raises(SessionFailed) as failed,
    ):
        SmtpSession.open(
            Endpoint("localhost", server.port, Security.TLS, other_certificate.ca_file.read_text()),
            "anna",
            "secret",
            Budget(20),
        )

    assert failed.value.step is Step.TLS
    assert isinstance(failed.value.__cause__, TlsFailed)
    assert failed.value.__cause__.certificate is CertificateFault.HOST_NAME


def test_tls_against_a_plain_port_says_so(certificate: Certificate, open_session: Open) -> None:
    with FaultySmtp() as server, pytest.raises(SessionFailed, match="answers without TLS") as failed:
        open_session(server, Security.TLS)

    assert "STARTTLS" in failed.value.remedy


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_refused_login_is_told_and_tried_once(mechanism: str, open_session: Open) -> None:
    faults = {"auth": Answer(b"535 5.7.8 Username and Password not accepted\r\n")}
    with FaultySmtp(faults, auth=mechanism) as server, pytest.raises(SessionFailed) as failed:
        open_session(server)

    assert failed.value.login_refused
    assert failed.value.permanent
    assert "Username and Password not accepted" in str(failed.value)
    assert sum(line.startswith(b"AUTH") for line in server.commands) == 1


@pytest.mark.parametrize("raw", [b"421 4.7.0 later\r\n", b"454 4.7.0 Temporary failure\r\n"])
def test_a_login_that_cannot_be_checked_is_no_refusal(raw: bytes, open_session: Open) -> None:
    with FaultySmtp({"auth": Answer(raw)}) as server, pytest.raises(SessionFailed) as failed:
        open_session(server)

    assert not failed.value.login_refused
    assert not failed.value.permanent


@pytest.mark.parametrize(
    "echo",
    [
        b"535 5.7.8 wrong: open sesame\r\n",
        b"535 5.7.8 wrong: OPEN SESAME!\r\n",
        b"535-5.7.8 you said\r\n535 5.7.8 AGFubmFAZXhhbXBsZS5vcmcAb3BlbiBzZXNhbWU=\r\n",
        b"535 5.7.8 b3BlbiBzZXNhbWU=\r\n",
    ],
)
def test_an_echoed_secret_is_not_kept(echo: bytes, open_session: Open) -> None:
    with FaultySmtp({"auth": Answer(echo)}) as server, pytest.raises(SessionFailed) as failed:
        open_session(server)

    kept = f"{failed.value} {failed.value.reply} {failed.value.__cause__!r} {failed.value.__context__!r}"
    assert not re.search("sesame|AGFu|b3Bl", kept, re.IGNORECASE)
    assert failed.value.login_refused
    assert failed.value.reply is not None
    assert failed.value.reply.code == 535


def test_a_server_without_login_is_told(open_session: Open) -> None:
    with FaultySmtp(auth="") as server, pytest.raises(SessionFailed, match="offers no login") as failed:
        open_session(server)

    assert not failed.value.login_refused
