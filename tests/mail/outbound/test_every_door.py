"""What a message may hold, by every door: the server gets the same, and no header gets a line too many."""

import base64
import email
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from config.errors import UserError
from lab.http_door import HttpDoor
from tasks import outbound
from tasks.access import SYSTEM
from tasks.outbound.tasks import enqueue_task
from tasks.runtime import Runtime
from tests.integration.outbound.test_cli import Run, run
from tests.integration.outbound.test_doors import Refused, api, bell_less, code_of, enqueue_by_sql
from tests.mail.outbound.conftest import Scene, Stage

__all__ = ["api", "bell_less", "run"]

PNG = b"\x89PNG\r\n\x1a\n\x00\x00"
NAME = "Übersicht, letzte.pdf"
TEXT = "Zeile\r\n.\n..\rleer:\n\n. \nFrom hier\n.\n"
WHOLE: dict[str, Any] = {
    "to": ["Böb Müller <bob@bücher.example>", "jörg@far.example"],
    "cc": ['"Smith, John" <john@far.example>'],
    "bcc": ["unseen@far.example"],
    "reply_to": ["Zoë <zoe@far.example>"],
    "subject": "Grüße aus Köln",
    "text": TEXT,
    "html": '<p>Grüße <img src="cid:logo">\n.\n',
    "headers": [["X-Order", "Nr. 17 für Jörg"]],
    "attachments": [
        {"name": NAME, "content_type": "application/pdf", "content": base64.b64encode(b"%PDF").decode()},
        {"name": "logo.png", "content_type": "image/png", "content_id": "logo", "inline": True,
         "content": base64.b64encode(PNG).decode()},
    ],
}  # fmt: skip

Door = Callable[[Scene, dict[str, Any]], UUID]


class NotSaid(UserError):
    """What the command line refused."""


@pytest.fixture(params=["http", "sql", "celery", "cli"])
def door(request: pytest.FixtureRequest, api: HttpDoor, run: Run, bell_less: None, tmp_path: Path) -> Door:
    """Each door in turn: takes a message, commits, gives its id."""

    def http(there: Scene, message: dict[str, Any]) -> UUID:
        answer = api.enqueue(there.account.address, message)
        if answer.status >= 400:
            raise Refused(answer)
        return UUID(answer.said["id"])

    def sql(there: Scene, message: dict[str, Any]) -> UUID:
        with there.runtime.db.begin() as session:
            return enqueue_by_sql(session, there.account.address, message, None)

    def celery(there: Scene, message: dict[str, Any]) -> UUID:
        enqueue_task.apply(args=(there.account.address, message), throw=True)
        return UUID(there.rows("SELECT max(uid::text) AS uid FROM mailwright.outbox")[0].uid)

    def cli(there: Scene, message: dict[str, Any]) -> UUID:
        done = run("--json", "send", "--from", there.account.address, *options(message, tmp_path))
        if done.returncode:
            raise NotSaid(last_line(done))
        return UUID(json.loads(done.stdout)["id"])

    return {"http": http, "sql": sql, "celery": celery, "cli": cli}[request.param]


def options(message: dict[str, Any], directory: Path) -> Iterator[str]:
    """A message as the command line is told it."""

    def file(name: str, content: bytes) -> str:
        (directory / name).write_bytes(content)
        return str(directory / name)

    for key, value in message.items():
        match key, value:
            case "text" | "html", str():
                yield from (f"--{key.replace('text', 'text-file')}", file(key, value.encode()))
            case "raw", str():
                yield from ("--raw", file("raw", base64.b64decode(value)))
            case "headers", [*pairs]:
                for name, words in pairs:
                    yield from ("--header", f"{name}: {words}")
            case "attachments", [*parts]:
                for part in parts:
                    path = file(part["name"], base64.b64decode(part["content"]))
                    inline = part.get("content_id")
                    yield from ("--inline", f"{inline}={path}") if inline else ("--attach", path)
            case "variables", dict():
                yield from ("--variables-file", file("variables", json.dumps(value).encode()))
            case _:
                for each in value if isinstance(value, list) else [value]:
                    yield from (f"--{key.replace('_', '-')}", str(each))


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def got(there: Scene) -> tuple[EmailMessage, bytes, Sequence[str]]:
    """The one message that the server took: read, as its bytes, and for whom."""
    (accepted,) = there.smtp.accepted()
    content = there.smtp.message(accepted.sha256)
    assert content.replace(b"\r\n", b"").count(b"\n") == content.replace(b"\r\n", b"").count(b"\r") == 0
    read = email.message_from_bytes(content, policy=policy.default)
    assert isinstance(read, EmailMessage)
    return read, content, accepted.recipients


def test_a_whole_message_is_the_same_by_every_door(scene: Stage, door: Door) -> None:
    there = scene(sent_copy="none")

    uid = door(there, WHOLE)
    there.dispatch()

    assert there.state(uid) == "sent"
    found, content, recipients = got(there)
    assert set(recipients) == {
        "bob@xn--bcher-kva.example", "jörg@far.example", "john@far.example", "unseen@far.example",
    }  # fmt: skip
    assert b"unseen" not in content
    assert found["bcc"] is None
    assert [a.display_name for a in found["to"].addresses] == ["Böb Müller", ""]
    assert [(a.display_name, a.addr_spec) for a in found["cc"].addresses] == [
        ("Smith, John", "john@far.example")
    ]
    assert [a.addr_spec for a in found["reply-to"].addresses] == ["zoe@far.example"]
    assert (found["subject"], found["x-order"]) == ("Grüße aus Köln", "Nr. 17 für Jörg")
    plain, rich = found.get_body(("plain",)), found.get_body(("html",))
    assert plain is not None
    assert rich is not None
    assert plain.get_content() == TEXT.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
    assert "cid:logo" in rich.get_content()
    (image,) = [part for part in found.walk() if part.get_content_type() == "image/png"]
    assert (image["content-id"], image.get_content()) == ("<logo>", PNG)
    assert [(part.get_filename(), part.get_content()) for part in found.iter_attachments()] == [
        (NAME, b"%PDF")
    ]


def test_raw_bytes_are_the_same_by_every_door(scene: Stage, door: Door) -> None:
    there = scene(sent_copy="none")
    head = f"From: {there.account.address}\nTo: bob@far.example\nBcc:\n eve@far.example\nX-Odd:   as  is\n"
    raw = f"{head}\n.\n..\r\n.\rä\n".encode()

    uid = door(there, {"raw": base64.b64encode(raw).decode()})
    there.dispatch()

    assert there.state(uid) == "sent"
    found, content, recipients = got(there)
    assert set(recipients) == {"bob@far.example", "eve@far.example"}
    assert b"eve" not in content
    assert found["x-odd"] == "as  is"
    assert content.partition(b"\r\n\r\n")[2] == ".\r\n..\r\n.\r\nä\r\n".encode()


def test_a_template_is_filled_in_by_every_door(scene: Stage, door: Door) -> None:
    there = scene(sent_copy="none")
    words = {"subject": "Nr. {{ n }}", "text": ".\n{{ who }}\n", "html": "<p>{{ who }}"}
    with there.runtime.db.begin() as session:
        outbound.store_template(SYSTEM, session, "order", words)

    uid = door(
        there, {"to": ["bob@far.example"], "template": "order", "variables": {"n": 17, "who": "A & <b>\n."}}
    )
    there.dispatch()

    assert there.state(uid) == "sent"
    found, _, _ = got(there)
    plain, rich = found.get_body(("plain",)), found.get_body(("html",))
    assert plain is not None
    assert rich is not None
    assert found["subject"] == "Nr. 17"
    assert plain.get_content() == ".\r\nA & <b>\r\n.\r\n"
    assert "A &amp; &lt;b&gt;" in rich.get_content()


def test_a_reply_keeps_the_thread_and_marks_the_original_by_every_door(scene: Stage, door: Door) -> None:
    there = scene(sent_copy="none")
    original = (
        b"From: Bob <bob@far.example>\r\nSubject: Tea\r\nMessage-ID: <2@far.example>\r\n"
        b"References: <1@far.example>\r\n\r\nTea?\r\n"
    )
    there.dovecot.deliver(there.account.address, original)
    there.sync()
    (row,) = there.rows("SELECT uid::text AS uid FROM mailwright.messages")

    uid = door(there, {"to": ["bob@far.example"], "text": "Yes.", "reply_to_message": row.uid})
    there.dispatch()
    there.sync()

    assert there.state(uid) == "sent"
    found, _, _ = got(there)
    assert found["in-reply-to"] == "<2@far.example>"
    assert found["references"].split() == ["<1@far.example>", "<2@far.example>"]
    (file,) = there.dovecot.files(there.account.address, "INBOX")
    assert "R" in file.name.rpartition(",")[2]  # Maildir's letter for \Answered


def test_staging_redirects_what_came_by_every_door(runtime: Runtime, scene: Stage, door: Door) -> None:
    there = scene(sent_copy="none")
    there.runtime = replace(
        runtime, settings=runtime.settings.model_copy(update={"staging_address": "tests@stage.example"})
    )

    uid = door(there, WHOLE)
    there.dispatch()

    assert there.state(uid) == "sent"
    found, _, recipients = got(there)
    assert recipients == ("tests@stage.example",)
    assert [a.addr_spec for a in found["cc"].addresses] == ["john@far.example"]


EVIL = "x\r\nX-Evil: 1"
HOSTILE: list[dict[str, Any]] = [
    *({"subject": f"x{end}X-Evil: 1"} for end in ("\r\n", "\n", "\r", "\u2028", "\x85", "\x0b", "\x0c")),
    {"subject": "=?utf-8?q?x=0D=0AX-Evil:_1?="},
    *({field: [f"{EVIL} <a@far.example>"]} for field in ("to", "cc", "bcc", "reply_to")),
    {"to": ["a@far.example>\r\nRCPT TO:<evil@far.example"]},
    {"in_reply_to": "<1@x>\r\nX-Evil: 1"},
    {"headers": [["X-A", EVIL]]},
    {"headers": [["X-A: 1\r\nX-Evil", "1"]]},
    {"headers": [["Bcc", "evil@far.example"]]},
    {"template": "hello", "variables": {"who": EVIL}},
]
BY_JSON: list[dict[str, Any]] = [
    {"to": [{"name": EVIL, "address": "a@far.example"}]},
    {"to": [{"name": "x", "address": "a\r\nX-Evil: 1@far.example"}]},
    {"references": ["<1@x>\r\nX-Evil: 1"]},
    {"template": {"subject": EVIL, "text": "x"}},
    *(
        {"attachments": [{"name": "x", "content": "", part: EVIL}]}
        for part in ("name", "content_type", "content_id")
    ),
]


def test_nothing_writes_a_line_of_its_own_by_any_door(
    scene: Stage, door: Door, request: pytest.FixtureRequest
) -> None:
    """Refused at the door, or as failed before the first attempt; what passes has it in no header."""
    there = scene(sent_copy="none")
    with there.runtime.db.begin() as session:
        outbound.store_template(SYSTEM, session, "hello", {"subject": "Hello {{ who }}", "text": "x"})
    by_words = request.node.callspec.params["door"] == "cli"
    passed, codes = [], set()
    for message in HOSTILE if by_words else HOSTILE + BY_JSON:
        whole = {"to": ["bob@far.example"], **message}
        if "template" not in message:
            whole |= {"text": "x"}
        try:
            passed.append((door(there, whole), message))
        except (UserError, DBAPIError, Refused) as error:
            codes.add("header_injection" if by_words else code_of(error))

    there.dispatch()

    assert "header_injection" in codes
    assert codes <= {"header_injection", "header_forbidden", "address_invalid"}
    for uid, message in passed:
        shown = there.show(uid)
        assert shown["state"] in {"sent", "failed"}, message
        assert "Traceback" not in (shown["last_reply"] or "")
    for accepted in there.smtp.accepted():
        assert "evil@far.example" not in accepted.recipients
        content = there.smtp.message(accepted.sha256)
        found = email.message_from_bytes(content, policy=policy.compat32)
        assert not {"x-evil", "bcc"} & {name.lower() for name in found}
