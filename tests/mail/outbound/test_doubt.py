"""Doubt, settled: a server that hangs up after the dot, and what proves whether it took the message."""

import pytest

from config.errors import Conflict, PermissionDenied
from lab.servers.recording import Behaviour
from tasks import access, outbound
from tasks.access import SYSTEM, Actor
from tasks.outbound import Verdict
from tests.mail.outbound.conftest import Stage

TAKES_AND_HANGS_UP = Behaviour(hang_up_after_dot=1.0)
LOSES = Behaviour(lose_after_dot=1.0)


@pytest.mark.parametrize("sent_copy", ["server", "append", "none"])
def test_a_copy_in_sent_proves_that_it_went_out_whoever_files(scene: Stage, sent_copy: str) -> None:
    there = scene(TAKES_AND_HANGS_UP, sent_copy=sent_copy)
    uid = there.send()
    assert there.state(uid) == "uncertain"
    there.file()

    there.sync()

    shown = there.show(uid)
    assert shown["state"] == "sent"
    assert shown["recipients"][0]["state"] == "sent"
    assert "in Sent" in shown["attempts"][0]["evidence"]
    types = [kind for kind, _ in there.events(uid)]
    assert types == ["outbound.queued", "outbound.uncertain", "outbound.sent"]
    evidence = there.events(uid)[-1][1]["evidence"]
    assert evidence["kind"] == "sent_copy"
    assert there.rows("SELECT 1 FROM mailwright.messages WHERE uid = :uid", uid=evidence["copy"])
    there.sync()
    assert there.in_sent() == 1
    assert len(there.smtp.accepted()) == 1


def test_a_copy_that_was_stored_before_the_doubt_began_counts(scene: Stage) -> None:
    there = scene(TAKES_AND_HANGS_UP, sent_copy="server")
    uid = there.send()
    there.file()
    there.rows("UPDATE mailwright.attempts SET outcome = NULL")  # the answer is still waited for
    there.sync()
    assert there.state(uid) == "uncertain"
    there.rows("UPDATE mailwright.attempts SET outcome = 'uncertain'")

    outbound.look_for_evidence(there.runtime)

    assert there.state(uid) == "sent"


def test_a_copy_proves_nothing_for_those_whom_the_server_had_refused(scene: Stage) -> None:
    refusals = {"eve@*": "550 5.1.1 no", "max@*": "451 4.3.0 later"}
    there = scene(Behaviour(hang_up_after_dot=1.0, recipients=refusals), sent_copy="server")
    uid = there.send(["bob@far.example", "eve@far.example", "max@far.example"])
    there.file()
    there.smtp.behaviour = Behaviour()

    there.sync()

    assert [r["state"] for r in there.show(uid)["recipients"]] == ["sent", "failed", "deferred"]
    assert there.state(uid) == "queued"
    there.dispatch()
    assert there.state(uid) == "sent"
    assert [each.recipients for each in there.smtp.accepted()] == [("bob@far.example",), ("max@far.example",)]


def test_a_live_search_finds_what_no_sync_has_stored(scene: Stage) -> None:
    there = scene(TAKES_AND_HANGS_UP, sent_copy="server")
    there.rows("UPDATE mailwright.mailboxes SET folders = '{INBOX}'")
    uid = there.send()
    there.file()

    there.look(later=True)

    assert there.state(uid) == "sent"
    assert there.events(uid)[-1][1]["evidence"]["copy"] is None


def test_absence_has_it_sent_again_where_the_server_files_and_the_policy_says_so(scene: Stage) -> None:
    there = scene(LOSES, sent_copy="server", resend_if_absent=True)
    uid = there.send()
    there.look()
    assert there.state(uid) == "uncertain", "the grace is not over"

    there.look(later=True)

    assert there.state(uid) == "queued"
    there.smtp.behaviour = Behaviour()
    there.dispatch()
    assert there.state(uid) == "sent"
    assert len(there.smtp.accepted()) == 1
    types = [kind for kind, _ in there.events(uid)]
    assert types == ["outbound.queued", "outbound.uncertain", "outbound.queued", "outbound.sent"]
    assert there.events(uid)[2][1]["evidence"] == {"kind": "absence"}


def test_absence_is_only_told_where_the_policy_is_not_to_send_again(scene: Stage) -> None:
    there = scene(LOSES, sent_copy="server")
    uid = there.send()

    for _ in range(3):
        there.look(later=True)

    assert there.state(uid) == "uncertain"
    kind, facts = there.events(uid)[-1]
    assert (kind, facts["found"]) == ("outbound.sought", False)
    assert len(there.events(uid)) == 3, "it is searched for once"


@pytest.mark.parametrize("sent_copy", ["append", "none"])
def test_absence_proves_nothing_where_the_server_does_not_file(scene: Stage, sent_copy: str) -> None:
    there = scene(LOSES, sent_copy=sent_copy, resend_if_absent=True)
    uid = there.send()

    there.look(later=True)

    assert there.state(uid) == "uncertain"
    assert there.rows("SELECT 1 FROM mailwright.commands WHERE kind = 'seek_sent'") == []


def test_a_person_says_that_it_arrived_and_its_copy_is_filed(scene: Stage) -> None:
    there = scene(TAKES_AND_HANGS_UP)
    uid = there.send()

    with there.runtime.db.begin() as session:
        outbound.settle(SYSTEM, session, uid, Verdict.SENT, "Bob has it")
    there.sync()

    shown = there.show(uid)
    assert shown["state"] == "sent"
    assert "Bob has it" in shown["attempts"][0]["evidence"]
    assert there.in_sent() == 1
    assert there.events(uid)[-1][1]["evidence"]["note"] == "Bob has it"
    with there.runtime.db.begin() as session:
        assert [entry.action for entry in access.list_audit(SYSTEM, session)] == ["message.settled"]


def test_a_person_says_that_it_failed(scene: Stage) -> None:
    there = scene(LOSES)
    uid = there.send()

    with there.runtime.db.begin() as session:
        outbound.settle(SYSTEM, session, uid, Verdict.FAILED)

    assert there.state(uid) == "failed"
    assert there.events(uid)[-1][0] == "outbound.failed"


def test_a_person_has_it_sent_again(scene: Stage) -> None:
    there = scene(LOSES)
    uid = there.send()

    with there.runtime.db.begin() as session:
        outbound.settle(SYSTEM, session, uid, Verdict.RESEND)
    there.smtp.behaviour = Behaviour()
    there.dispatch()

    assert there.state(uid) == "sent"
    assert len(there.smtp.accepted()) == 1


def test_only_who_may_send_settles_and_only_what_is_in_doubt(scene: Stage) -> None:
    there = scene(LOSES)
    uid = there.send()
    with there.runtime.db.begin() as session:
        access.add_user(SYSTEM, session, "eve")

    with pytest.raises(PermissionDenied), there.runtime.db.begin() as session:
        outbound.settle(Actor("eve"), session, uid, Verdict.SENT)
    with there.runtime.db.begin() as session:
        outbound.settle(SYSTEM, session, uid, Verdict.SENT)
    with pytest.raises(Conflict, match="not in doubt"), there.runtime.db.begin() as session:
        outbound.settle(SYSTEM, session, uid, Verdict.RESEND)
