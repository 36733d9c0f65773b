"""After sending: bounces and complaints, tied to message and recipient, and what comes of them."""

from typing import Any

import pytest
from sqlalchemy import text

from config.errors import Conflict, NotFound, PermissionDenied
from lab.servers.recording import Behaviour
from lab.servers.smtp_faults import Answer
from tasks import access, outbound
from tasks.access import SYSTEM, Actor
from tests.mail.outbound.conftest import Scene, Stage
from tests.mail.outbound.test_wishes import Make

BOB, EVE = "bob@far.example", "eve@far.example"
TAKES_AND_HANGS_UP = Behaviour(hang_up_after_dot=1.0)


def bounce(
    there: Scene, *failed: str, status: str = "5.1.1", returned: bool = True, envelope: str = ""
) -> None:
    """A server's report on the last message it took, as RFC 3464 has it."""
    taken = there.smtp.accepted()[-1]
    head = there.smtp.message(taken.sha256).partition(b"\r\n\r\n")[0]
    groups = "".join(
        f"\r\nFinal-Recipient: rfc822; {address}\r\nAction: failed\r\nStatus: {status}\r\n"
        f"Diagnostic-Code: smtp; 550 {status} nobody here\r\n"
        for address in failed
    )
    original = head if returned else b"Message-ID: " + taken.message_id.encode()
    report = (
        f"From: MAILER-DAEMON@far.example\r\nTo: {there.account.address}\r\nSubject: Undelivered\r\n"
        "MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
        "--b\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n"
        "--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; far.example\r\n"
        f"{f'Original-Envelope-Id: {envelope}' if envelope else 'X-Queue: 1'}\r\n{groups}\r\n"
        "--b\r\nContent-Type: text/rfc822-headers\r\n\r\n"
    )
    there.dovecot.deliver(there.account.address, report.encode() + original + b"\r\n--b--\r\n")


def hear(there: Scene) -> None:
    """Sync the mailbox, and do what housekeeping does."""
    there.sync()
    outbound.settle_reports(there.runtime)


def suppressed(there: Scene) -> list[Any]:
    with there.runtime.db.begin() as session:
        return [(s.address, s.reason.value, s.mailbox) for s in outbound.suppressed(SYSTEM, session)]


@pytest.mark.parametrize("by", ["attempt", "envelope id", "Message-ID"])
def test_a_bounce_is_tied_to_its_message_and_recipient(scene: Stage, by: str) -> None:
    there = scene(sent_copy="none")
    uid = there.send([BOB, EVE])
    attempt = str(there.show(uid)["attempts"][0]["id"])

    bounce(there, EVE, returned=by == "attempt", envelope=attempt if by == "envelope id" else "")
    hear(there)

    shown = there.show(uid)
    assert shown["state"] == "sent"
    assert [r["state"] for r in shown["recipients"]] == ["sent", "bounced"]
    assert outbound.undelivered(shown)
    events = dict(there.events(uid))
    told = events["outbound.bounced"]
    assert told["recipients"] == [
        {"address": EVE, "code": None, "reply": "550 5.1.1 nobody here", "status": "5.1.1"}
    ]
    assert told["attempt"] == (None if by == "Message-ID" else attempt)
    assert there.rows("SELECT 1 FROM mailwright.messages WHERE uid = :uid", uid=told["report"])
    assert suppressed(there) == [(EVE, "bounce", there.account.address)]


def test_a_report_settles_the_doubt_about_everybody_of_its_attempt(scene: Stage) -> None:
    there = scene(TAKES_AND_HANGS_UP, sent_copy="none")
    uid = there.send([BOB, EVE])
    assert there.state(uid) == "uncertain"

    bounce(there, EVE)
    hear(there)

    shown = there.show(uid)
    assert shown["state"] == "sent"
    assert [r["state"] for r in shown["recipients"]] == ["sent", "bounced"]
    kind, facts = there.events(uid)[-1]
    assert (kind, facts["evidence"]["kind"]) == ("outbound.sent", "report")


def test_a_full_mailbox_bounces_and_is_written_to_again(scene: Stage) -> None:
    there = scene(sent_copy="none")
    uid = there.send()

    bounce(there, BOB, status="5.2.2")
    hear(there)

    assert there.show(uid)["recipients"][0]["state"] == "bounced"
    assert suppressed(there) == []
    assert there.state(there.send()) == "sent"


def test_a_bounce_is_dealt_with_once_and_one_of_others_is_passed_over(scene: Stage) -> None:
    there = scene(sent_copy="none")
    uid = there.send()
    bounce(there, BOB)
    hear(there)
    there.rows("UPDATE mailwright.reports SET settled_at = NULL")

    hear(there)

    assert [kind for kind, _ in there.events(uid)].count("outbound.bounced") == 1
    there.rows(
        "UPDATE mailwright.reports SET settled_at = NULL, attempt = NULL, original_message_id = '<x@y>'"
    )
    assert outbound.settle_reports(there.runtime) == 1
    assert outbound.settle_reports(there.runtime) == 0


def test_who_is_suppressed_fails_before_any_server_sees_it_and_the_others_get_it(scene: Stage) -> None:
    there = scene(sent_copy="none")
    with there.runtime.db.begin() as session:
        outbound.add_suppression(SYSTEM, session, "EVE@far.example", detail="asked us to stop")

    uid = there.send([BOB, EVE])

    assert there.smtp.accepted()[0].recipients == (BOB,)
    shown = there.show(uid)
    assert shown["state"] == "sent"
    assert [r["state"] for r in shown["recipients"]] == ["sent", "failed"]
    assert shown["recipients"][1]["reply"] == "recipient_suppressed: manual: asked us to stop"
    failed = dict(there.events(uid))["outbound.failed"]
    assert (failed["code"], failed["recipients"][0]["address"]) == ("recipient_suppressed", EVE)


def test_a_message_for_suppressed_recipients_only_fails_with_a_code(scene: Stage) -> None:
    there = scene(sent_copy="none")
    with there.runtime.db.begin() as session:
        outbound.add_suppression(SYSTEM, session, BOB, mailbox=there.account.address)

    uid = there.send()

    shown = there.show(uid)
    assert (shown["state"], shown["error"]) == ("failed", "recipient_suppressed")
    assert not there.smtp.accepted()
    assert [kind for kind, _ in there.events(uid)] == ["outbound.queued", "outbound.failed"]
    with there.runtime.db.begin() as session:
        outbound.remove_suppression(SYSTEM, session, BOB, mailbox=there.account.address)
    assert there.state(there.send()) == "sent"


def test_who_was_deferred_and_is_suppressed_meanwhile_is_left_out(scene: Stage) -> None:
    there = scene(Behaviour(recipients={"eve@*": "451 4.3.0 later"}), sent_copy="none")
    uid = there.send([BOB, EVE])
    assert there.state(uid) == "deferred"
    there.smtp.behaviour = Behaviour()
    with there.runtime.db.begin() as session:
        outbound.add_suppression(SYSTEM, session, EVE)
    there.rows("UPDATE mailwright.outbox SET due_at = now()")
    there.rows("UPDATE mailwright.outbox_lanes SET next_due_at = now()")

    there.dispatch()

    assert there.state(uid) == "sent"
    assert [r["state"] for r in there.show(uid)["recipients"]] == ["sent", "failed"]
    assert len(there.smtp.accepted()) == 1


def test_a_refusal_of_the_address_at_once_suppresses_it_and_a_suspicion_of_spam_does_not(post: Make) -> None:
    mail = post({"rcpt": [Answer(b"550 5.1.1 nobody\r\n"), Answer(b"550 5.7.1 spam\r\n")]})
    mail.enqueue([EVE, BOB])

    mail.dispatch()

    with mail.runtime.db.begin() as session:
        (entry,) = outbound.suppressed(SYSTEM, session)
    assert (entry.address, entry.detail) == (EVE, "550 5.1.1 nobody")


def test_a_complaint_is_told_and_ends_the_writing(scene: Stage) -> None:
    there = scene(sent_copy="none")
    uid = there.send()
    head = there.smtp.message(there.smtp.accepted()[-1].sha256).partition(b"\r\n\r\n")[0]
    report = (
        b"From: abuse@far.example\r\nSubject: complaint\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nSpam.\r\n"
        b"--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\n"
        b"User-Agent: x\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n" + head + b"\r\n\r\nx\r\n--b--\r\n"
    )
    there.dovecot.deliver(there.account.address, report)

    hear(there)

    assert dict(there.events(uid))["outbound.complained"]["recipients"] == [BOB]
    assert suppressed(there) == [(BOB, "complaint", there.account.address)]
    assert there.show(uid)["recipients"][0]["state"] == "sent"


def test_the_list_is_edited_by_who_may_and_every_change_is_audited(scene: Stage) -> None:
    there = scene()
    with there.runtime.db.begin() as session:
        access.add_user(SYSTEM, session, "eve")
        outbound.add_suppression(SYSTEM, session, BOB)
    for mailbox in (None, there.account.address):
        with pytest.raises(PermissionDenied), there.runtime.db.begin() as session:
            outbound.remove_suppression(Actor("eve"), session, BOB, mailbox=mailbox)
    with pytest.raises(Conflict, match="already"), there.runtime.db.begin() as session:
        outbound.add_suppression(SYSTEM, session, BOB.upper())
    with pytest.raises(NotFound, match="not on the list of"), there.runtime.db.begin() as session:
        outbound.remove_suppression(SYSTEM, session, BOB, mailbox=there.account.address)
    with there.runtime.db.begin() as session:
        assert outbound.suppressed(Actor("eve"), session) == []
        outbound.remove_suppression(SYSTEM, session, BOB)
        actions = session.execute(text("SELECT action FROM mailwright.audit ORDER BY id")).scalars()
        assert list(actions)[1:] == ["suppression.added", "suppression.removed"]
