"""What was asked for is what a real server got: read from its files by the standard parser."""

import base64
import email
import os
from collections.abc import Callable, Iterator
from email import policy
from email.message import EmailMessage
from typing import Any

import pytest

from lab.apt import ensure_mail_servers
from lab.ports import wait_until
from lab.servers.debian import DebianMail
from lab.world import Ports, add_mailbox, add_provider
from tasks import outbound
from tasks.access import SYSTEM
from tasks.runtime import Runtime
from tests.mail.outbound.conftest import Post, Stage

ANNA, BOB, EVE = "anna@example.org", "bob@example.org", "eve@example.org"
IDN = "bob@xn--bcher-kva.example"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NAMES = [
    "Übersicht 2030.pdf",
    "отчёт за январь, последняя правка.xlsx",
    "報告書" * 12 + ".txt",
    'a "b" \\c;d.bin',
]


@pytest.fixture(scope="module")
def mail() -> Iterator[DebianMail]:
    """Postfix and Dovecot."""
    if os.geteuid() != 0:
        pytest.skip("Postfix starts only as root")
    ensure_mail_servers()
    users = {ANNA: "pw", BOB: "pw2", EVE: "pw3", IDN: "pw4"}
    running = DebianMail(None, users, ["example.org", "xn--bcher-kva.example"])
    try:
        yield running
    finally:
        running.stop()


Send = Callable[..., EmailMessage]


@pytest.fixture
def send(mail: DebianMail, runtime: Runtime) -> Send:
    """Send a message from Anna through Postfix, and read Bob's copy."""
    ports = Ports(
        imap=mail.imap_port,
        smtp=mail.postfix.smtp_port,
        imap_security=mail.imap_security,
        smtp_security="starttls",
        ca=mail.ca_file,
    )
    add_mailbox(runtime, add_provider(runtime, ports), ANNA, "pw")

    def through(**message: Any) -> EmailMessage:
        before = set(mail.dovecot.files(BOB, "INBOX"))
        with runtime.db.begin() as session:
            uid = outbound.enqueue(SYSTEM, session, ANNA, message).uid
        outbound.dispatch(SYSTEM, runtime, 20)
        with runtime.db.begin() as session:
            shown = outbound.show(SYSTEM, session, uid)
        assert shown["state"] == "sent", shown
        wait_until(lambda: len(mail.dovecot.files(BOB, "INBOX")) > len(before), 30, "Bob has it")
        (new,) = set(mail.dovecot.files(BOB, "INBOX")) - before
        found = email.message_from_bytes(new.read_bytes(), policy=policy.default)
        assert isinstance(found, EmailMessage)
        return found

    return through


def test_every_part_arrives_with_its_name_and_bytes(send: Send) -> None:
    found = send(
        to=f"Böb Müller <{BOB}>",
        cc={"name": 'Smith, John "Jo"', "address": BOB},
        reply_to=["answers@example.org", "Zoë <zoe@example.org>"],
        subject="Grüße aus Köln, " * 10,
        text="Zeile\n.\n..\nFrom here\n" + "ü" * 2000 + "\n",
        html='<p>Grüße <img src="cid:logo">',
        headers={"X-Order": "Nr. 17 für Jörg"},
        attachments=[
            {"name": "logo.png", "content_type": "image/png", "content_id": "logo", "content": _base64(PNG)},
            *({"name": name, "content": _base64(name.encode())} for name in NAMES),
        ],
    )

    assert found["subject"].strip() == ("Grüße aus Köln, " * 10).strip()
    assert [(a.display_name, a.addr_spec) for a in found["to"].addresses] == [("Böb Müller", BOB)]
    assert [(a.display_name, a.addr_spec) for a in found["cc"].addresses] == [('Smith, John "Jo"', BOB)]
    assert [a.addr_spec for a in found["reply-to"].addresses] == ["answers@example.org", "zoe@example.org"]
    assert found["x-order"] == "Nr. 17 für Jörg"
    plain, rich = found.get_body(("plain",)), found.get_body(("html",))
    assert plain is not None
    assert rich is not None
    assert text_of(plain) == "Zeile\n.\n..\nFrom here\n" + "ü" * 2000 + "\n"
    assert "cid:logo" in rich.get_content()
    (image,) = [part for part in found.walk() if part.get_content_type() == "image/png"]
    assert (image["content-id"], image.get_content()) == ("<logo>", PNG)
    attached = {part.get_filename(): part.get_content() for part in found.iter_attachments()}
    assert attached == {name: name.encode() for name in NAMES}


def test_bcc_gets_the_message_and_nobody_sees_it(send: Send, mail: DebianMail) -> None:
    found = send(to=BOB, bcc=f"Eve Unseen <{EVE}>", text="x")

    wait_until(lambda: len(mail.dovecot.files(EVE, "INBOX")) == 1, 30, "Eve has it")
    assert "eve" not in found.as_string().lower()
    assert b"unseen" not in mail.dovecot.files(EVE, "INBOX")[0].read_bytes().lower()


def test_a_raw_message_arrives_as_it_was_but_for_its_line_ends(send: Send) -> None:
    body = "\n".join([".", "..", ". .", "ä", "", "ends"])
    raw = f"From: {ANNA}\nTo: {BOB}\nBcc: {EVE}\nSubject: raw\nX-Odd:   kept  as is\n\n{body}\n".encode()

    found = send(raw=_base64(raw))

    assert (found["x-odd"], found["bcc"]) == ("kept  as is", None)
    assert found.get_payload(decode=True) == body.encode() + b"\n"


def test_a_template_arrives_filled_in(send: Send, runtime: Runtime) -> None:
    words = {"subject": "Nr. {{ n }}", "text": "Dear {{ who }}\n", "html": "<p>Dear {{ who }}"}
    with runtime.db.begin() as session:
        outbound.store_template(SYSTEM, session, "order", words)

    found = send(to=BOB, template="order", variables={"n": 17, "who": "Jörg <b>\n.\n"})

    plain, rich = found.get_body(("plain",)), found.get_body(("html",))
    assert plain is not None
    assert rich is not None
    assert found["subject"] == "Nr. 17"
    assert text_of(plain) == "Dear Jörg <b>\n.\n\n"
    assert "Jörg &lt;b&gt;" in rich.get_content()


def test_an_international_domain_is_an_a_label_on_the_wire(send: Send, mail: DebianMail) -> None:
    found = send(to=BOB, cc="Böb <bob@bücher.example>", text="x")

    wait_until(lambda: len(mail.dovecot.files(IDN, "INBOX")) == 1, 30, "the other Bob has it")
    assert found["cc"].addresses[0].addr_spec == IDN


def test_a_local_part_in_utf8_goes_by_smtputf8(scene: Stage) -> None:
    stage = scene()

    uid = stage.send("Jörg <jörg@bücher.example>", text="x")

    (accepted,) = stage.smtp.accepted()
    assert stage.state(uid) == "sent"
    assert accepted.recipients == ("jörg@xn--bcher-kva.example",)
    assert "<jörg@xn--bcher-kva.example>".encode() in stage.smtp.message(accepted.sha256)


def test_an_address_in_utf8_is_refused_in_a_sentence_where_the_server_cannot(
    post: Callable[..., Post],
) -> None:
    box = post(smtp={"extensions": ["PIPELINING", "8BITMIME"]})
    refused = box.enqueue("jörg@remote.example")
    fine = box.enqueue("bob@bücher.example", subject="Grüße", text="ä")

    box.dispatch()

    shown = box.show(refused)
    assert shown["state"] == "failed"
    assert "SMTPUTF8" in shown["last_reply"]
    assert box.state(fine) == "sent"
    (taken,) = box.server.accepted
    assert taken.recipients == ("bob@xn--bcher-kva.example",)
    assert taken.content.isascii()


@pytest.mark.parametrize("sent_copy", ["append", "none", "server"])
def test_a_reply_by_id_keeps_the_thread_and_marks_the_original(scene: Stage, sent_copy: str) -> None:
    stage = scene(sent_copy=sent_copy)
    original = (
        b"From: Bob <bob@far.example>\r\nSubject: Tea\r\nMessage-ID: <2@far.example>\r\n"
        b"References: <0@far.example>\r\n <1@far.example>\r\n\r\nTea?\r\n"
    )
    stage.dovecot.deliver(stage.account.address, original)
    stage.sync()
    (row,) = stage.rows("SELECT uid::text AS uid, thread_id FROM mailwright.messages")

    stage.send(text="Yes.", reply_to_message=row.uid, to=[f"b{n}@far.example" for n in range(60)])
    if sent_copy == "server":
        stage.file()
    stage.sync()
    stage.sync()
    stage.sync()

    (accepted,) = stage.smtp.accepted()
    sent = email.message_from_bytes(stage.smtp.message(accepted.sha256), policy=policy.default)
    assert sent["in-reply-to"] == "<2@far.example>"
    assert sent["references"].split() == ["<0@far.example>", "<1@far.example>", "<2@far.example>"]
    (flags,) = stage.rows(
        "SELECT p.flags FROM mailwright.places p JOIN mailwright.messages m ON m.id = p.message_id "
        "WHERE m.uid = cast(:uid AS uuid)",
        uid=row.uid,
    )[0]
    assert "\\Answered" in flags
    (file,) = stage.dovecot.files(stage.account.address, "INBOX")
    assert "R" in file.name.rpartition(",")[2]  # Maildir's letter for it
    threads = stage.rows("SELECT DISTINCT thread_id FROM mailwright.messages")
    assert len(threads) == 1


def text_of(part: EmailMessage) -> str:
    """A part's text, with the line ends of Dovecot's file."""
    return str(part.get_content()).replace("\r\n", "\n")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
