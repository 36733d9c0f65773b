"""The connection test against real servers, and against servers that fail on purpose."""

import pytest

from lab.ports import free_ports
from lab.servers.certificates import Certificate, issue
from lab.servers.dovecot import Dovecot
from lab.servers.imap_faults import Faults, FaultyImap, Stage
from lab.servers.postfix import Postfix
from lab.servers.smtp_faults import Close, FaultySmtp, Hang
from tasks.mailboxes.connection import Report
from tasks.mailboxes.values import Protocol
from tasks.wire.net import Security
from tests.mail.conftest import Account
from tests.mail.mailboxes.conftest import Examine

IMAP, SMTP = Protocol.IMAP, Protocol.SMTP
TLS, STARTTLS, NONE = Security.TLS, Security.STARTTLS, Security.NONE


def steps(report: Report) -> list[str]:
    return [step.step for step in report.steps]


def assert_failed_at(report: Report, step: str, *words: str) -> None:
    assert report.failure is not None
    assert report.failure.step == step, report
    assert report.failure is report.steps[-1]
    told = f"{report.failure.said} {report.failure.remedy}".lower()
    assert report.failure.remedy
    assert "traceback" not in told
    for word in words:
        assert word.lower() in told, told


def test_every_step_to_dovecot_is_reported_in_order(
    dovecot: Dovecot, account: Account, look: Examine
) -> None:
    tls = look(IMAP, dovecot.imaps_port, TLS, account.address, account.password, ca=dovecot.ca_file)
    starttls = look(IMAP, dovecot.imap_port, STARTTLS, account.address, account.password, ca=dovecot.ca_file)

    assert steps(tls) == ["resolve", "connect", "tls", "greeting", "login", "select"]
    assert steps(starttls) == ["resolve", "connect", "greeting", "starttls", "login", "select"]
    assert tls.ok
    assert starttls.ok
    assert all(step.milliseconds >= 0 for step in tls.steps)


def test_every_step_to_postfix_is_reported_in_order(
    dovecot: Dovecot, postfix: Postfix, account: Account, look: Examine
) -> None:
    tls = look(SMTP, postfix.smtps_port, TLS, account.address, account.password, ca=dovecot.ca_file)
    starttls = look(SMTP, postfix.smtp_port, STARTTLS, account.address, account.password, ca=dovecot.ca_file)

    assert steps(tls) == ["resolve", "connect", "tls", "greeting", "ehlo", "auth"]
    assert steps(starttls)[:4] == ["resolve", "connect", "greeting", "ehlo"]
    assert steps(starttls)[-1] == "auth"
    assert tls.ok
    assert starttls.ok


def test_a_wrong_password_is_told_from_all_else(
    dovecot: Dovecot, postfix: Postfix, account: Account, look: Examine
) -> None:
    imap = look(IMAP, dovecot.imaps_port, TLS, account.address, "wrong", ca=dovecot.ca_file, timeout=20.0)
    smtp = look(SMTP, postfix.smtps_port, TLS, account.address, "wrong", ca=dovecot.ca_file, timeout=20.0)

    assert_failed_at(imap, "login", "app password")
    assert_failed_at(smtp, "auth", "app password")
    assert imap.refused
    assert smtp.refused


@pytest.mark.parametrize("protocol", list(Protocol))
def test_a_closed_port(protocol: Protocol, look: Examine) -> None:
    report = look(protocol, free_ports(1, "127.0.0.1")[0], TLS)

    assert_failed_at(report, "connect", "refused the connection", "check the port")
    assert not report.refused


@pytest.mark.parametrize("protocol", list(Protocol))
def test_an_unknown_host(protocol: Protocol, look: Examine) -> None:
    assert_failed_at(look(protocol, 993, TLS, host="no-such-host.invalid"), "resolve", "no-such-host.invalid")


def test_tls_against_a_plain_port(dovecot: Dovecot, postfix: Postfix, look: Examine) -> None:
    assert_failed_at(look(IMAP, dovecot.imap_port, TLS, ca=dovecot.ca_file), "tls", "TLS")
    assert_failed_at(look(SMTP, postfix.smtp_port, TLS, ca=dovecot.ca_file), "tls", "TLS")


def test_a_plain_dialogue_against_a_tls_port(dovecot: Dovecot, postfix: Postfix, look: Examine) -> None:
    assert_failed_at(look(IMAP, dovecot.imaps_port, STARTTLS, timeout=1.0), "greeting")
    assert_failed_at(look(SMTP, postfix.smtps_port, STARTTLS, timeout=1.0), "greeting")


def test_a_certificate_of_an_unknown_authority(dovecot: Dovecot, postfix: Postfix, look: Examine) -> None:
    assert_failed_at(look(IMAP, dovecot.imaps_port, TLS), "tls", "certificate")
    assert_failed_at(look(IMAP, dovecot.imap_port, STARTTLS), "starttls", "certificate")
    assert_failed_at(look(SMTP, postfix.smtps_port, TLS), "tls", "certificate")
    assert_failed_at(look(SMTP, postfix.smtp_port, STARTTLS), "starttls", "certificate")


def test_a_certificate_for_another_host(tmp_path_factory: pytest.TempPathFactory, look: Examine) -> None:
    certificate = issue(tmp_path_factory.mktemp("tls"), ("other.example",))
    with FaultyImap(certificate=certificate, tls=True) as imap:
        assert_failed_at(look(IMAP, imap.port, TLS, ca=certificate.ca_file), "tls", "certificate")
        assert not any(line.lower().find(b"secret") >= 0 for line in imap.lines)
    with FaultySmtp(certificate=certificate, tls=True) as smtp:
        assert_failed_at(look(SMTP, smtp.port, TLS, ca=certificate.ca_file), "tls", "certificate")
        assert not any(b"AUTH" in line for line in smtp.commands)


def test_starttls_that_is_not_offered_is_never_skipped(certificate: Certificate, look: Examine) -> None:
    with FaultyImap(faults=Faults(strip_starttls=True), certificate=certificate) as imap:
        assert_failed_at(look(IMAP, imap.port, STARTTLS, ca=certificate.ca_file), "starttls", "STARTTLS")
        assert imap.commands["LOGIN"] == imap.commands["AUTHENTICATE"] == 0
    with FaultySmtp(certificate=certificate, strip_starttls=True) as smtp:
        assert_failed_at(look(SMTP, smtp.port, STARTTLS, ca=certificate.ca_file), "starttls", "STARTTLS")
        assert not any(b"AUTH" in line for line in smtp.commands)


def test_plaintext_injected_before_the_handshake(certificate: Certificate, look: Examine) -> None:
    faults = Faults(inject_after_starttls=b"* OK injected\r\n")
    with FaultyImap(faults=faults, certificate=certificate) as imap:
        assert_failed_at(look(IMAP, imap.port, STARTTLS, ca=certificate.ca_file), "starttls")
        assert imap.commands["LOGIN"] == imap.commands["AUTHENTICATE"] == 0


@pytest.mark.parametrize(
    ("stage", "step"), [(Stage.GREETING, "greeting"), (Stage.LOGIN, "login"), (Stage.SELECT, "select")]
)
@pytest.mark.parametrize("way", ["hang", "close"])
def test_an_imap_server_that_goes_silent_or_away(stage: Stage, step: str, way: str, look: Examine) -> None:
    with FaultyImap(faults=Faults(**{way: frozenset({stage})})) as server:  # type: ignore[arg-type]
        report = look(IMAP, server.port, NONE, timeout=0.5)

    assert_failed_at(report, step)
    assert not report.refused


@pytest.mark.parametrize(("stage", "step"), [("greeting", "greeting"), ("ehlo", "ehlo"), ("auth", "auth")])
@pytest.mark.parametrize("fault", [Hang(), Close()])
def test_an_smtp_server_that_goes_silent_or_away(
    stage: str, step: str, fault: Hang | Close, look: Examine
) -> None:
    with FaultySmtp({stage: fault}) as server:
        report = look(SMTP, server.port, NONE, timeout=0.5)

    assert_failed_at(report, step)
    assert not report.refused


def test_a_server_too_busy_to_log_in_refuses_no_credentials(look: Examine) -> None:
    faults = Faults(reply={Stage.LOGIN: b"NO [UNAVAILABLE] try again later"})
    with FaultyImap(faults=faults) as server:
        report = look(IMAP, server.port, NONE)

    assert_failed_at(report, "login", "try again later")
    assert not report.refused
