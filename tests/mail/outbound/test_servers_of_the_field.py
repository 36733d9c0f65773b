"""What others did with mail when servers refused it or hung up, is not done here."""

import pytest

from lab.servers.recording import Behaviour
from lab.servers.smtp_faults import Answer
from tests.mail.outbound.conftest import Stage
from tests.mail.outbound.test_wishes import Make


def test_a_refusal_for_good_is_tried_once_and_leaves_no_copy_in_sent(scene: Stage) -> None:
    """Elsewhere: 1,500 tries in two hours, a copy in Sent for each."""
    there = scene(Behaviour(final_reply="554 5.7.1 message refused"), sent_copy="append")
    uid = there.send()

    for _ in range(3):
        there.rows("UPDATE mailwright.outbox SET due_at = now()")
        there.rows("UPDATE mailwright.outbox_lanes SET next_due_at = now()")
        there.dispatch()
        there.sync()

    assert there.state(uid) == "failed"
    assert len(there.show(uid)["attempts"]) == 1
    assert there.in_sent() == 0


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
def test_a_refusal_counts_though_the_server_hangs_up_behind_it(post: Make, step: str) -> None:
    """Elsewhere a RSET into the closed connection hid the server's own words."""
    mail = post({step: [Answer(b"554 5.7.1 we do not want this\r\n", close=True)]})
    uid, other = mail.enqueue(), mail.enqueue("eve@remote.example")

    mail.dispatch()
    mail.due_again()
    mail.dispatch()

    assert mail.state(uid) == "failed"
    assert "we do not want this" in mail.show(uid)["recipients"][0]["reply"]
    assert mail.state(other) == "sent"
    assert len(mail.server.accepted) == 1


def test_connections_that_end_badly_are_given_back(scene: Stage) -> None:
    """Elsewhere they leaked until the pool was empty, and the rest of the mail was never sent."""
    there = scene(Behaviour(hang_up_after_dot=0.5), sent_copy="none", connections_per_account=2)
    uids = [there.enqueue() for _ in range(40)]

    there.dispatch()

    states = {there.state(uid) for uid in uids}
    assert states == {"sent", "uncertain"}
    assert len(there.smtp.accepted()) == 40
    assert there.smtp.sessions_total > 10, "many connections ended badly"
    assert there.smtp.sessions_peak <= 2


def test_where_the_server_files_sent_mail_nothing_is_filed_by_us(scene: Stage) -> None:
    """Elsewhere Sent had everything twice at Zoho, Gmail and Microsoft 365."""
    there = scene(sent_copy="server")
    uid = there.send()
    there.file()

    there.sync()

    assert there.state(uid) == "sent"
    assert there.in_sent() == 1
    assert there.rows("SELECT 1 FROM mailwright.commands") == []
