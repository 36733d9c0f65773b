"""What becomes of queued mail at servers that behave and that do not."""

import base64
import email
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import policy

from lab.servers.smtp_faults import Answer, Close, Drip, Hang
from tasks.runtime import Runtime
from tests.mail.outbound.conftest import ADDRESS, Post

Make = Callable[..., Post]


def test_a_queued_message_arrives_with_its_words_and_is_sent(post: Make) -> None:
    mail = post()
    uid = mail.enqueue(
        ["Bob <bob@remote.example>"], bcc="eve@remote.example", subject="Grüße", text="Zeile\n.\n..x\n"
    )

    done = mail.dispatch()

    assert done.tally.sent == 1
    assert mail.state(uid) == "sent"
    assert mail.events(uid) == ["outbound.queued", "outbound.sent"]
    (taken,) = mail.server.accepted
    parsed = email.message_from_bytes(taken.content, policy=policy.default)
    assert taken.mail_from == ADDRESS
    assert taken.recipients == ("bob@remote.example", "eve@remote.example")
    assert parsed["subject"] == "Grüße"
    assert parsed.get_content() == "Zeile\r\n.\r\n..x\r\n"
    assert b"eve@" not in taken.content
    assert parsed["x-mailwright-attempt"] == str(mail.show(uid)["attempts"][0]["id"])
    assert mail.sql("SELECT count(*) FROM mailwright.data_started WHERE witness IS NULL") == 0


def test_many_go_over_few_connections_each_once(post: Make) -> None:
    mail = post(connections_per_account=3)
    for number in range(120):
        mail.enqueue(subject=str(number))

    mail.dispatch()

    subjects = [email.message_from_bytes(taken.content)["subject"] for taken in mail.server.accepted]
    missing = set(map(str, range(120))) - set(subjects)
    assert not missing, [mail.show(uid) for uid in mail.queued if mail.show(uid)["subject"] in missing]
    assert len(subjects) == 120
    assert mail.server.connections <= 3
    assert mail.sql("SELECT count(*) FROM mailwright.outbox WHERE state = 'sent'") == 120


def test_the_higher_priority_goes_first_then_the_older(post: Make) -> None:
    mail = post(connections_per_account=1)
    for subject, priority in (("low", -5), ("first", 0), ("second", 0), ("high", 9)):
        mail.enqueue(subject=subject, priority=priority)

    mail.dispatch()

    subjects = [email.message_from_bytes(taken.content)["subject"] for taken in mail.server.accepted]
    assert subjects == ["high", "first", "second", "low"]


def test_each_recipient_has_an_outcome_and_only_the_deferred_are_tried_again(post: Make) -> None:
    refusals = [None, Answer(b"550 5.1.1 nobody\r\n"), Answer(b"451 4.3.0 later\r\n")]
    mail = post({"rcpt": refusals})
    uid = mail.enqueue(["a@r.example", "b@r.example", "c@r.example"])

    mail.dispatch()

    states = {r["address"]: (r["state"], r["code"]) for r in mail.show(uid)["recipients"]}
    assert states == {
        "a@r.example": ("sent", 250),
        "b@r.example": ("failed", 550),
        "c@r.example": ("deferred", 451),
    }
    assert mail.state(uid) == "deferred"

    mail.due_again()
    mail.dispatch()

    assert [taken.recipients for taken in mail.server.accepted] == [("a@r.example",), ("c@r.example",)]
    assert mail.state(uid) == "sent"
    assert mail.events(uid)[1:] == [
        "outbound.sent",
        "outbound.deferred",
        "outbound.failed",
        "outbound.suppressed",
        "outbound.sent",
    ]


def test_every_attempt_sends_the_same_bytes_but_for_its_own_header(post: Make) -> None:
    mail = post({"dot": [Answer(b"451 4.3.0 later\r\n")]})
    uid = mail.enqueue()
    mail.dispatch()
    assert mail.state(uid) == "deferred"
    stored = bytes(mail.sql("SELECT content FROM mailwright.outbox_content"))

    mail.due_again()
    mail.dispatch()

    header, _, rest = mail.server.accepted[-1].content.partition(b"\r\n")
    assert rest == stored
    assert header == f"X-Mailwright-Attempt: {mail.show(uid)['attempts'][1]['id']}".encode()


def test_a_permanent_refusal_fails_at_once(post: Make) -> None:
    mail = post({"dot": Answer(b"554 5.7.1 spam\r\n")})
    uid = mail.enqueue()

    mail.dispatch()

    assert mail.state(uid) == "failed"
    assert mail.events(uid) == ["outbound.queued", "outbound.failed"]


def test_silence_after_the_dot_is_doubt_and_is_not_sent_again(post: Make) -> None:
    mail = post({"dot": [Hang()]}, smtp_timeout=1)
    uid = mail.enqueue()

    mail.dispatch()
    mail.due_again()
    mail.sql(
        "INSERT INTO mailwright.outbox_wakes (mailbox_id, due_at) VALUES (:id, now())", id=mail.mailbox_id
    )
    mail.dispatch()

    assert mail.state(uid) == "uncertain"
    assert mail.events(uid) == ["outbound.queued", "outbound.uncertain"]
    assert len(mail.server.accepted) == 1


def test_a_hang_up_before_the_dot_defers(post: Make) -> None:
    mail = post({"data": [Close()]})
    uid = mail.enqueue()

    mail.dispatch()

    assert mail.state(uid) == "deferred"
    assert mail.events(uid) == ["outbound.queued", "outbound.deferred"]


def test_a_dripped_answer_does_not_stretch_the_budget(post: Make) -> None:
    mail = post({"mail": [Drip(pause=0.1)]}, smtp_timeout=1)
    uid = mail.enqueue()

    mail.dispatch()

    (attempt,) = mail.show(uid)["attempts"]
    assert mail.state(uid) == "deferred"
    assert 1000 <= attempt["waited_ms"] < 2000


def test_the_history_of_an_attempt_has_each_exchange_and_no_secret(post: Make) -> None:
    mail = post({"rcpt": [Answer(b"451 4.3.0 later\r\n")]})
    uid = mail.enqueue()

    mail.dispatch()
    mail.due_again()
    mail.dispatch()

    first, second = mail.show(uid)["attempts"]
    opened, tried = first["dialogue"][:-4], first["dialogue"][-4:]
    assert [(e["step"], e["code"]) for e in opened] == [
        ("resolve", None), ("connect", None), ("greeting", 220), ("ehlo", 250), ("auth", 235)
    ]  # fmt: skip
    assert [(e["step"], e["code"]) for e in tried] == [
        ("mail", 250), ("rcpt", 451), ("data", 554), ("rset", 250)
    ]  # fmt: skip
    assert [e["code"] for e in second["dialogue"]] == [250, 250, 354, None, 250]
    assert all(e["ms"] >= 0 for e in first["dialogue"] + second["dialogue"])
    kept = mail.sql("SELECT string_agg(to_jsonb(a)::text, '') FROM mailwright.attempts AS a")
    secrets = (b"secret", base64.b64encode(f"\0{ADDRESS}\0secret".encode()))
    assert not any(secret.decode() in kept for secret in secrets)


def test_a_server_that_reports_is_asked_to_name_the_attempt(post: Make) -> None:
    """So that a report that comes back without our headers is tied to the message all the same."""
    mail = post({"data": [Answer(b"451 4.3.0 later\r\n")]}, smtp={"extensions": ["DSN"]})
    uid = mail.enqueue()

    mail.dispatch()
    mail.due_again()
    mail.dispatch()

    lines = [line.decode() for line in mail.server.commands if line.startswith(b"MAIL")]
    attempts = [attempt["id"] for attempt in mail.show(uid)["attempts"]]
    assert lines == [f"MAIL FROM:<{mail.address}> RET=HDRS ENVID={attempt}" for attempt in attempts]
    assert len(attempts) == 2
    told = b"RCPT TO:<bob@remote.example> NOTIFY=DELAY,FAILURE ORCPT=rfc822;bob@remote.example"
    assert mail.server.commands.count(told) == 2


def test_in_staging_mode_nobody_but_one_address_gets_anything(runtime: Runtime, post: Make) -> None:
    """To, Cc and Bcc, at first and when tried again; the words of the message are as they were."""
    mail = post({"rcpt": [Answer(b"452 4.2.2 full\r\n")]})
    mail.runtime = replace(
        runtime, settings=runtime.settings.model_copy(update={"staging_address": "tests@stage.example"})
    )
    uid = mail.enqueue(
        ["bob@remote.example", "ann@remote.example"], cc="cem@remote.example", bcc="dora@remote.example"
    )

    mail.dispatch()
    first = [recipient["state"] for recipient in mail.show(uid)["recipients"]]
    mail.due_again()
    mail.dispatch()

    assert first == ["deferred"] * 4
    assert mail.state(uid) == "sent"
    assert [recipient["state"] for recipient in mail.show(uid)["recipients"]] == ["sent"] * 4
    (taken,) = mail.server.accepted
    assert taken.recipients == ("tests@stage.example",)
    assert b"To: bob@remote.example, ann@remote.example" in taken.content
    told = [line for line in mail.server.commands if line.startswith(b"RCPT")]
    assert {line.split(b">")[0] for line in told} == {b"RCPT TO:<tests@stage.example"}


def test_a_server_that_is_down_defers_the_lane_and_spends_no_attempt(post: Make) -> None:
    mail = post()
    mail.server.finish()
    uid = mail.enqueue()

    mail.dispatch()

    shown = mail.show(uid)
    assert (shown["state"], shown["attempts"]) == ("queued", [])
    assert "refused the connection" in shown["waits_for"]
    assert mail.sql("SELECT next_due_at > now() FROM mailwright.outbox_lanes")


def test_a_refused_login_is_told_to_the_mailbox(post: Make) -> None:
    mail = post({"auth": Answer(b"535 5.7.8 no\r\n")})
    uid = mail.enqueue()

    mail.dispatch()

    assert mail.state(uid) == "queued"
    assert mail.sql("SELECT smtp_refusals FROM mailwright.mailboxes") == 1


def test_a_held_connection_that_died_is_replaced_within_the_attempt(post: Make) -> None:
    mail = post({"mail": [None, Close()]})
    mail.enqueue()
    mail.dispatch()
    uid = mail.enqueue()

    mail.dispatch()

    assert mail.state(uid) == "sent"
    assert len(mail.show(uid)["attempts"]) == 1
    assert mail.server.connections == 2


def test_what_is_past_its_time_expires_unsent(post: Make) -> None:
    mail = post()
    uid = mail.enqueue(expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    mail.sql("UPDATE mailwright.outbox SET expires_at = now() - interval '1 second'")

    mail.dispatch()

    assert mail.state(uid) == "expired"
    assert mail.events(uid) == ["outbound.queued", "outbound.expired"]
    assert not mail.server.accepted


def test_not_before_is_kept(post: Make) -> None:
    mail = post()
    uid = mail.enqueue(not_before=(datetime.now(UTC) + timedelta(hours=1)).isoformat())

    mail.dispatch()

    assert mail.state(uid) == "queued"
    assert not mail.server.accepted
    mail.due_again()
    mail.dispatch()
    assert mail.state(uid) == "sent"


def test_messages_a_minute_are_kept(post: Make) -> None:
    mail = post(messages_per_minute=3)
    for _ in range(5):
        mail.enqueue()

    mail.dispatch()
    mail.due_again()
    mail.dispatch()

    assert len(mail.server.accepted) == 3


def test_a_sent_copy_is_asked_for_once(post: Make) -> None:
    mail = post({"rcpt": [None, Answer(b"451 4.3.0 later\r\n")]}, sent_copy="append")
    mail.enqueue(["a@r.example", "b@r.example"])
    mail.dispatch()
    mail.due_again()
    mail.dispatch()

    assert mail.sql("SELECT count(*) FROM mailwright.commands WHERE kind = 'append_sent'") == 1


def test_a_stopping_worker_gives_the_rest_back(post: Make) -> None:
    mail = post(connections_per_account=1)
    uids = [mail.enqueue() for _ in range(30)]
    stopping = mail.runtime.stopping
    original = mail.server.fault
    mail.server.fault = lambda step: (stopping.set() if step == "dot" else None) or original(step)  # type: ignore[method-assign]

    mail.dispatch()

    states = [mail.state(uid) for uid in uids]
    assert states.count("sent") == 10
    assert states.count("queued") == 20
    assert mail.sql("SELECT lease_owner FROM mailwright.outbox_lanes") is None
