"""Delivery reports and complaints: by the letter, in the words of many systems, and hostile."""

import base64
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.outbound.compose import ATTEMPT_HEADER
from tasks.wire.mime import Limits, Report, ReportedRecipient, read
from tasks.wire.mime.reports import ATTEMPT_FIELD
from tests.unit.mime.test_read_property import CALM, assert_storable

ATTEMPT = "019ab3c4-0000-7000-8000-000000000001"
ORIGINAL = (
    "Received: from a by b\r\nX-Mailwright-Attempt: " + ATTEMPT + "\r\nMessage-ID: <lost@x.example>\r\n"
    "From: Anna <anna@x.example>\r\nTo: gone@y.example\r\nSubject: lost\r\n\r\nHello\r\n"
)


def report(status: str, returned: str = ORIGINAL, kind: str = "message/rfc822") -> bytes:
    """A multipart/report (RFC 6522) around a delivery-status part."""
    return (
        "From: Mail Delivery System <MAILER-DAEMON@x.example>\r\nSubject: Undelivered\r\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
        "--b\r\n\r\nThis is the mail system at host mx.x.example.\r\n"
        f"--b\r\nContent-Type: message/delivery-status\r\n\r\n{status}\r\n"
        f"--b\r\nContent-Type: {kind}\r\n\r\n{returned}\r\n--b--\r\n"
    ).encode()


POSTFIX = report(
    "Reporting-MTA: dns; mx.x.example\r\nOriginal-Envelope-Id: 019ab\r\nX-Postfix-Queue-ID: 4F2\r\n"
    "Arrival-Date: Wed, 25 Nov 2026 10:00:00 +0000 (UTC)\r\n\r\n"
    "Final-Recipient: rfc822; gone@y.example\r\nOriginal-Recipient: rfc822;Gone@y.example\r\n"
    "Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.y.example\r\n"
    "Diagnostic-Code: smtp; 550 5.1.1 <gone@y.example>: Recipient address rejected:\r\n    User unknown\r\n"
    "\r\n"
    "Final-Recipient: rfc822; slow@y.example\r\nAction: delayed\r\nStatus: 4.4.1\r\n"
    "Diagnostic-Code: X-Postfix; connect to mx.y.example[192.0.2.1]:25: timed out\r\n"
)


def test_the_attempt_header_is_the_one_that_dispatch_writes() -> None:
    assert ATTEMPT_HEADER.lower() == ATTEMPT_FIELD


def test_a_report_by_the_letter() -> None:
    """As Postfix writes it (RFC 3464)."""
    assert read(POSTFIX).report == Report(
        "delivery",
        "019ab",
        "<lost@x.example>",
        ATTEMPT,
        (
            ReportedRecipient(
                "gone@y.example",
                "Gone@y.example",
                "failed",
                "5.1.1",
                "550 5.1.1 <gone@y.example>: Recipient address rejected: User unknown",
            ),
            ReportedRecipient(
                "slow@y.example",
                None,
                "delayed",
                "4.4.1",
                "connect to mx.y.example[192.0.2.1]:25: timed out",
            ),
        ),
    )


def test_only_the_header_of_the_message_is_returned() -> None:
    """RET=HDRS (RFC 3461 §4.3)."""
    header = ORIGINAL.partition("\r\n\r\n")[0] + "\r\n"
    raw = report("\r\nFinal-Recipient: rfc822; gone@y.example\r\nAction: failed\r\nStatus: 5.0.0\r\n",
                 header, "text/rfc822-headers")  # fmt: skip
    found = read(raw).report
    assert found is not None
    assert (found.message_id, found.attempt) == ("<lost@x.example>", ATTEMPT)


def test_a_report_in_base64() -> None:
    status = base64.encodebytes(b"Reporting-MTA: dns; x\n\nFinal-Recipient: rfc822; a@y\nAction: failed\n")
    raw = report("PLACE").replace(
        b"message/delivery-status\r\n\r\nPLACE",
        b"message/delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\n" + status,
    )
    assert [r.address for r in read(raw).report.recipients] == ["a@y"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "recipient"),
    [
        ("Final-Recipient: RFC822;<a@y>\nAction: Failed (expired)",
         ReportedRecipient("a@y", None, "failed", None, None)),
        ("Final-Recipient: a@y\nStatus: 4.2.2", ReportedRecipient("a@y", None, "delayed", "4.2.2", None)),
        ("Original-Recipient: rfc822;b@y\nAction: relayed\nStatus: 2.0.0 (ok)",
         ReportedRecipient("b@y", "b@y", "relayed", "2.0.0", None)),
        ("Final-Recipient: rfc822;a@y\nAction: failed\nStatus: 5.0.0\n"
         "Diagnostic-Code: smtp;550-5.2.1 disabled\n 550 5.2.1 for good",
         ReportedRecipient("a@y", None, "failed", "5.2.1", "550-5.2.1 disabled 550 5.2.1 for good")),
        ("Final-Recipient: utf-8; j\\x{F6}rg@y\nAction: expanded",
         ReportedRecipient("jörg@y", None, "expanded", None, None)),
        ("Final-Recipient: rfc822; a@y\n\nAction: delivered\nStatus: 2.1.5",
         ReportedRecipient("a@y", None, "delivered", "2.1.5", None)),
    ],
)  # fmt: skip
def test_recipients_as_systems_write_them(fields: str, recipient: ReportedRecipient) -> None:
    found = read(report("Reporting-MTA: dns; x\r\n\r\n" + fields.replace("\n", "\r\n") + "\r\n")).report
    assert found is not None
    assert found.recipients == (recipient,)


def test_recipients_that_no_empty_line_divides() -> None:
    found = read(report("Final-Recipient: rfc822;a@y\r\nAction: failed\r\n"
                        "Final-Recipient: rfc822;b@y\r\nAction: delayed\r\n")).report  # fmt: skip
    assert found is not None
    assert [(r.address, r.action) for r in found.recipients] == [("a@y", "failed"), ("b@y", "delayed")]


def complaint(fields: str) -> bytes:
    return (
        "From: <feedback@provider.example>\r\nSubject: FW: ad\r\n"
        "Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n"
        "--b\r\n\r\nThis is an email abuse report.\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\n"
        f"{fields}\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n{ORIGINAL}\r\n--b--\r\n"
    ).encode()


def test_a_complaint() -> None:
    """RFC 5965 §B.2, with two who complain."""
    raw = complaint(
        "Feedback-Type: abuse\r\nUser-Agent: x/1.0\r\nVersion: 1\r\nOriginal-Envelope-Id: 019ab\r\n"
        "Original-Mail-From: <anna@x.example>\r\nOriginal-Rcpt-To: <one@y.example>\r\n"
        "Original-Rcpt-To: two@y.example\r\n"
    )
    assert read(raw).report == Report(
        "complaint",
        "019ab",
        "<lost@x.example>",
        ATTEMPT,
        (
            ReportedRecipient("one@y.example", None, "complained", None, "abuse"),
            ReportedRecipient("two@y.example", None, "complained", None, "abuse"),
        ),
    )


def test_a_complaint_that_hides_who_complains_still_names_the_message() -> None:
    found = read(complaint("Feedback-Type: abuse\r\nVersion: 1\r\n")).report
    assert found is not None
    assert (found.recipients, found.attempt) == ((), ATTEMPT)


@pytest.mark.parametrize("kind", ["not-spam", "auth-failure"])
def test_feedback_that_is_no_complaint(kind: str) -> None:
    """RFC 6430 and RFC 6591."""
    assert read(complaint(f"Feedback-Type: {kind}\r\nOriginal-Rcpt-To: a@y\r\n")).report is None


DAEMON = "From: MAILER-DAEMON@mx.y.example\r\nSubject: failure notice\r\n"
RETURNED = (
    "Received: by x\r\nX-Mailwright-Attempt: " + ATTEMPT + "\r\nMessage-ID: <lost@x.example>\r\n\r\nHi\r\n"
)

BOUNCES = {
    "qmail": (
        DAEMON,
        "Hi. This is the qmail-send program at mx.y.example.\n"
        "I'm afraid I wasn't able to deliver your message to the following addresses.\n"
        "This is a permanent error; I've given up. Sorry it didn't work out.\n\n"
        "<gone@y.example>:\nSorry, no mailbox here by that name. (#5.1.1)\n\n"
        "<full@y.example>:\n192.0.2.1 does not like recipient.\n"
        "Remote host said: 552 5.2.2 Over quota\nGiving up on 192.0.2.1.\n\n"
        "--- Below this line is a copy of the message.\n\n",
        [
            ("gone@y.example", "failed", "5.1.1", "Sorry, no mailbox here by that name. (#5.1.1)"),
            (
                "full@y.example",
                "failed",
                "5.2.2",
                "192.0.2.1 does not like recipient. Remote host said: 552 5.2.2 Over quota "
                "Giving up on 192.0.2.1.",
            ),
        ],
    ),
    "exim": (
        "From: Mail Delivery System <Mailer-Daemon@mx.y.example>\r\nX-Failed-Recipients: gone@y.example\r\n"
        "Auto-Submitted: auto-replied\r\nSubject: Mail delivery failed: returning message to sender\r\n",
        "This message was created automatically by mail delivery software.\n\n"
        "A message that you sent could not be delivered to one or more of its\n"
        "recipients. This is a permanent error. The following address(es) failed:\n\n"
        "  gone@y.example\n    host mx.y.example [192.0.2.1]\n"
        "    SMTP error from remote mail server after RCPT TO:<gone@y.example>:\n"
        "    550 5.1.1 <gone@y.example>: User unknown\n\n"
        "------ This is a copy of the message, including all the headers. ------\n\n",
        [
            (
                "gone@y.example",
                "failed",
                "5.1.1",
                "host mx.y.example [192.0.2.1] SMTP error from remote mail server after RCPT "
                "TO:<gone@y.example>: 550 5.1.1 <gone@y.example>: User unknown",
            )
        ],
    ),
    "exim, delayed": (
        "From: Mail Delivery System <Mailer-Daemon@mx.y.example>\r\nSubject: Warning: message delayed\r\n",
        "This message was created automatically by mail delivery software.\n"
        "A message that you sent has not yet been delivered to one or more of its\n"
        "recipients after more than 24 hours on the queue on mx.y.example.\n\n"
        "The address to which the message has not yet been delivered is:\n\n"
        "  slow@y.example\n    Delay reason: Connection timed out\n\n"
        "No action is required on your part. Delivery attempts will continue.\n",
        [("slow@y.example", "delayed", None, "Delay reason: Connection timed out")],
    ),
    "postfix, its words alone": (
        "From: MAILER-DAEMON@mx.y.example (Mail Delivery System)\r\nSubject: Undelivered Mail\r\n",
        "This is the mail system at host mx.y.example.\n\nI'm sorry to have to inform you that your message\n"
        "could not be delivered to one or more recipients. It's attached below.\n\n"
        "                   The mail system\n\n"
        "<gone@y.example>: host mx.y.example[192.0.2.1] said: 550 5.1.1\n"
        "    <gone@y.example>: Recipient address rejected: User unknown (in reply to\n    RCPT TO command)\n",
        [
            (
                "gone@y.example",
                "failed",
                "5.1.1",
                "host mx.y.example[192.0.2.1] said: 550 5.1.1 Recipient address rejected: User unknown "
                "(in reply to RCPT TO command)",
            )
        ],
    ),
    "sendmail": (
        "From: Mail Delivery Subsystem <MAILER-DAEMON>\r\nSubject: Returned mail\r\n",
        "The original message was received at Wed, 25 Nov 2026 10:00:00 GMT\n\n"
        "   ----- The following addresses had permanent fatal errors -----\n"
        "<gone@y.example>\n    (reason: 550 5.1.1 User unknown)\n\n"
        "   ----- Transcript of session follows -----\n>>> RCPT To:<gone@y.example>\n"
        "<<< 550 5.1.1 User unknown\n\n   ----- Original message follows -----\n\n",
        [("gone@y.example", "failed", "5.1.1", "(reason: 550 5.1.1 User unknown)")],
    ),
    "gmail": (
        "From: Mail Delivery Subsystem <mailer-daemon@g.example>\r\nX-Failed-Recipients: gone@y.example\r\n",
        "Delivery to the following recipient failed permanently:\n\n     gone@y.example\n\n"
        "Technical details of permanent failure:\nGoogle tried to deliver your message, but it was rejected\n"
        "by the server for the recipient domain. The error was:\n550 5.1.1 unknown\n\n"
        "----- Original message -----\n\n",
        [
            (
                "gone@y.example",
                "failed",
                "5.1.1",
                "Technical details of permanent failure: Google tried to deliver your message, but it was "
                "rejected by the server for the recipient domain. The error was: 550 5.1.1 unknown",
            )
        ],
    ),
    "exchange, of old": (
        "From: System Administrator <postmaster@y.example>\r\nSubject: Undeliverable: lost\r\n",
        "Your message\n\n  To:      gone@y.example\n  Subject: lost\n\n"
        "did not reach the following recipient(s):\n\n"
        "gone@y.example on Wed, 25 Nov 2026 10:00:00 +0100\n    The recipient name is not recognized\n"
        "    <mx.y.example #5.1.1>\n",
        [
            (
                "gone@y.example",
                "failed",
                "5.1.1",
                "The recipient name is not recognized <mx.y.example #5.1.1>",
            )
        ],
    ),
    "exchange": (
        "From: Microsoft Outlook <postmaster@y.example>\r\nSubject: Undeliverable: lost\r\n",
        "Delivery has failed to these recipients or groups:\n\n"
        "gone@y.example<mailto:gone@y.example>\nThe email address you entered couldn't be found.\n\n"
        "Diagnostic information for administrators:\n\nGenerating server: mx.y.example\n\n"
        "gone@y.example\nRemote Server returned '550 5.1.1 RESOLVER.ADR.RecipNotFound; not found'\n\n"
        "Original message headers:\n\n",
        [
            (
                "gone@y.example",
                "failed",
                "5.1.1",
                "Remote Server returned '550 5.1.1 RESOLVER.ADR.RecipNotFound; not found'",
            )
        ],
    ),
    "a header alone": (
        "From: noreply@y.example\r\nX-Failed-Recipients: a@y.example, b@y.example\r\n",
        "Something went wrong.\n",
        [("a@y.example", "failed", None, None), ("b@y.example", "failed", None, None)],
    ),
}


@pytest.mark.parametrize("name", BOUNCES)
def test_bounces_that_were_written_for_people(name: str) -> None:
    head, words, recipients = BOUNCES[name]
    returned = RETURNED if words.endswith("\n\n") else ""
    found = read((head + "\r\n" + words.replace("\n", "\r\n") + returned).encode()).report
    assert found is not None
    assert [(r.address, r.action, r.status, r.diagnostic) for r in found.recipients] == recipients
    if returned:
        assert (found.message_id, found.attempt) == ("<lost@x.example>", ATTEMPT)


def test_a_bounce_in_words_with_the_message_attached() -> None:
    head, words, _ = BOUNCES["sendmail"]
    raw = (
        f"{head}Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n{words}\r\n"
        f"--b\r\nContent-Type: message/rfc822\r\n\r\n{ORIGINAL}\r\n--b--\r\n"
    ).encode()
    found = read(raw).report
    assert found is not None
    assert (found.message_id, found.attempt) == ("<lost@x.example>", ATTEMPT)


def test_what_is_no_report() -> None:
    """A person who quotes a bounce, an answer out of office, and a report that somebody forwards."""
    head, words, _ = BOUNCES["qmail"]
    assert read(b"From: Anna <anna@x.example>\r\n\r\n" + words.encode()).report is None
    assert (
        read(head.encode() + b"Return-Path: <>\r\n\r\nI am away until Monday.\r\nanna@x.example\r\n").report
        is None
    )
    forwarded = b"Content-Type: multipart/mixed; boundary=f\r\n\r\n--f\r\n\r\nSee below\r\n--f\r\n"
    forwarded += b"Content-Type: message/rfc822\r\n\r\n" + POSTFIX + b"\r\n--f--\r\n"
    assert read(b"From: Anna <anna@x.example>\r\n" + forwarded).report is None


def test_control_characters_and_length_do_not_reach_the_report() -> None:
    raw = report("Original-Envelope-Id: a\x00\x1b[31mb\r\n\r\n"
                 "Final-Recipient: rfc822; a\x1b@y\u202e.example\r\n"
                 "Action: failed\r\nDiagnostic-Code: smtp; 550 \x07" + "x" * 50_000 + "\r\n")  # fmt: skip
    found = read(raw).report
    assert found is not None
    (recipient,) = found.recipients
    assert found.envelope_id == "a [31mb"
    assert recipient.address.isprintable()
    assert recipient.diagnostic is not None
    assert (len(recipient.diagnostic), recipient.diagnostic.isprintable()) == (1000, True)


def test_recipients_are_bounded() -> None:
    many = "\r\n".join(f"Final-Recipient: rfc822; a{n}@y\r\nAction: failed\r\n" for n in range(3000))
    found = read(report("Reporting-MTA: dns; x\r\n\r\n" + many), Limits(addresses=7)).report
    assert found is not None
    assert len(found.recipients) == 7


PIECES = st.sampled_from(
    ["Final-Recipient: rfc822; a@y", "Original-Recipient: ;;", "Action: failed", "Action:", "Status: 5.1.1",
     "", "Status: 5.", "Diagnostic-Code: smtp; 550 \x00", " folded", ":", "Original-Envelope-Id: \ufffd",
     "Feedback-Type: abuse", "Original-Rcpt-To: <", "<a@y>:", "  b@y", "a@y on ", "--b", "--b--",
     "Content-Type: message/rfc822", "Hi. This is the qmail-send program", "Message-ID: <a", "\u2028",
     "Final-Recipient: utf-8; \\x{D800}@y", "--- Below this line is a copy of the message.",
     "X-Mailwright-Attempt: " + "x" * 2000]
)  # fmt: skip


@CALM
@given(st.lists(PIECES, max_size=25), st.sampled_from(["\r\n", "\n", "\r"]), st.booleans())
def test_any_report_can_be_stored(lines: list[str], ending: str, machine: bool) -> None:
    body = ending.join(lines)
    raws = [report(body), complaint(body)] if machine else [(DAEMON + "\r\n" + body).encode()]
    for raw in raws:
        mail = read(raw)
        assert_storable(mail)
        if mail.report is not None:
            json.dumps([r.address for r in mail.report.recipients])
            assert all(r.address and r.address.isprintable() for r in mail.report.recipients)


@pytest.mark.parametrize(
    "unit",
    [
        "-",
        "<a@",
        "a@y\n",
        "a" * 300 + "\n",
        " ",
        "-\n",
        "\n ",
        "Final-Recipient: a\n",
        "created ",
        "5.",
        "\r",
        "x@y:",
    ],
)
def test_no_expression_goes_back_and_forth_over_a_hostile_report(unit: str) -> None:
    """One that did would take minutes of processor time here, where this takes parts of a second."""
    words = "created automatically by mail delivery software\n" + unit * (400_000 // len(unit))
    start = time.process_time()

    read((DAEMON + "\r\n" + words).encode())
    read(report(words))

    assert time.process_time() - start < 5
