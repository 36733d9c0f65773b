"""Templates and replies by id, through every door: what was accepted does not change later."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from config.errors import PermissionDenied, UserError
from lab.http_door import HttpDoor
from tasks import access, outbound
from tasks.access import SYSTEM, Actor
from tasks.runtime import Runtime
from tests.integration.outbound.test_cli import Run, run, told
from tests.integration.outbound.test_doors import (
    ADDRESS,
    ADMINISTRATOR,
    Door,
    Refused,
    api,
    bell_less,
    code_of,
    door,
    mailbox,
)

__all__ = ["api", "bell_less", "door", "mailbox", "run"]

WORDS = {"subject": "Order {{ number }}", "text": "Dear {{ name }},\nthank you.\n", "html": None}
VARIABLES = {"number": 17, "name": "Jörg\n& <co>"}


def keep(runtime: Runtime, name: str = "order", words: Any = WORDS) -> bool:
    with runtime.db.begin() as session:
        return outbound.store_template(ADMINISTRATOR, session, name, words)


def request(runtime: Runtime, uid: UUID) -> Any:
    with runtime.db.begin() as session:
        return session.execute(
            text("SELECT request FROM mailwright.outbox WHERE uid = :uid"), {"uid": uid}
        ).scalar_one()


def test_a_message_keeps_the_template_of_when_it_was_accepted(
    door: Door, runtime: Runtime, mailbox: int
) -> None:
    assert keep(runtime)
    asked = {"to": "bob@far.example", "template": "order", "variables": VARIABLES}

    uid = door(asked, "order-17")
    assert not keep(runtime, words={**WORDS, "text": "Other words {{ and }}"})

    kept = {"name": "order", "subject": WORDS["subject"], "text": WORDS["text"]}
    assert request(runtime, uid)["template"] == kept
    assert door({**asked, "variables": {**VARIABLES, "and": 1}}, None) != uid
    if "engine" not in str(door):
        assert request(runtime, uid)["variables"] == VARIABLES


def test_the_key_of_a_message_with_a_template_outlives_the_template(
    door: Door, runtime: Runtime, mailbox: int
) -> None:
    keep(runtime)
    asked = {"to": "bob@far.example", "template": "order", "variables": VARIABLES}
    uid = door(asked, "order-17")
    keep(runtime, words={**WORDS, "text": "Other words."})

    assert door(asked, "order-17") == uid


def test_an_unknown_template_is_refused_at_the_door(door: Door, mailbox: int) -> None:
    with pytest.raises((UserError, DBAPIError, Refused)) as refused:
        door({"to": "bob@far.example", "template": "nosuch"}, None)
    assert code_of(refused.value) == "template_unknown"


@pytest.mark.parametrize("door", ["engine", "celery", "http"], indirect=True)
def test_a_missing_variable_is_named_at_the_door(door: Door, runtime: Runtime, mailbox: int) -> None:
    keep(runtime)
    with pytest.raises((UserError, Refused)) as refused:
        door({"to": "bob@far.example", "template": "order", "variables": {"number": 1}}, None)
    assert code_of(refused.value) == "template_variable_missing"
    assert "name" in str(refused.value)


def test_many_at_once_get_their_words_by_every_door(api: HttpDoor, runtime: Runtime, mailbox: int) -> None:
    keep(runtime)
    original = stored(runtime, mailbox, 1, [])
    good = {"to": "bob@far.example", "template": "order", "variables": VARIABLES}
    answering = {"to": "bob@far.example", "text": "x", "reply_to_message": str(original)}
    wrong = {"to": "bob@far.example", "template": "nosuch"}

    told_by_http = api.enqueue_many(ADDRESS, [{"message": each} for each in (good, wrong, answering)])
    assert [one.get("code") for one in told_by_http.said["results"]] == [None, "template_unknown", None]
    by_sql = text("SELECT id FROM mailwright.enqueue_many(:mailbox, cast(:messages AS jsonb[]))")
    with runtime.db.begin() as session:
        given = {"mailbox": ADDRESS, "messages": [json.dumps(good), json.dumps(answering)]}
        uids = list(session.execute(by_sql, given).scalars())
    with pytest.raises(DBAPIError) as refused, runtime.db.begin() as session:
        session.execute(by_sql, {**given, "messages": [json.dumps(good), json.dumps(wrong)]})
    assert code_of(refused.value) == "template_unknown"
    assert "message 2" in str(refused.value)

    for words, answer in (uids, [one["id"] for one in told_by_http.said["results"] if "id" in one]):
        assert request(runtime, words)["template"]["text"] == WORDS["text"]
        assert request(runtime, answer)["in_reply_to"] == "<1@far.example>"


def stored(runtime: Runtime, mailbox_id: int, number: int, headers: list[list[str]], **fields: Any) -> UUID:
    """A message of the mailbox, as the sync stores one."""
    with runtime.db.begin() as session:
        return UUID(
            str(
                session.execute(
                    text("""
                        INSERT INTO mailwright.messages (mailbox_id, digest, size, message_id, in_reply_to,
                            headers, subject, addresses, announced)
                        VALUES (:id, :digest, 1, :name, :answers, cast(:headers AS jsonb), 'Tea',
                            cast(:people AS jsonb), true) RETURNING uid
                    """),
                    {
                        "id": mailbox_id,
                        "digest": bytes([number]),
                        "name": fields.get("name", f"<{number}@far.example>"),
                        "answers": fields.get("answers", []),
                        "headers": json.dumps(headers),
                        "people": json.dumps({"from": [{"name": "Bob", "address": "bob@far.example"}]}),
                    },
                ).scalar_one()
            )
        )


@pytest.mark.parametrize(
    ("headers", "fields", "references"),
    [
        ([["Subject", "Tea"]], {}, ["<1@far.example>"]),
        ([["References", "<a@x>\r\n <b@x>"]], {}, ["<a@x>", "<b@x>", "<1@far.example>"]),
        ([["REFERENCES", "<a@x> junk <b\u00e9@x> <c@x>"]], {}, ["<a@x>", "<c@x>", "<1@far.example>"]),
        ([["References", "<a@x> <1@far.example>"]], {}, ["<a@x>", "<1@far.example>"]),
        ([], {"answers": ["<p@x>"]}, ["<p@x>", "<1@far.example>"]),
        ([], {"answers": ["<p@x>", "<q@x>"]}, ["<1@far.example>"]),
        ([], {"answers": ["<p q>"]}, ["<1@far.example>"]),
    ],
)  # fmt: skip
def test_a_reply_by_id_carries_on_the_thread(
    door: Door, runtime: Runtime, mailbox: int, headers: Any, fields: Any, references: list[str]
) -> None:
    original = stored(runtime, mailbox, 1, headers, **fields)

    uid = door({"to": "bob@far.example", "text": "x", "reply_to_message": str(original)}, None)

    kept = request(runtime, uid)
    assert (kept["in_reply_to"], kept["references"]) == ("<1@far.example>", references)
    assert "reply_to_message" not in kept


def test_a_very_long_thread_keeps_its_first_and_its_newest(
    door: Door, runtime: Runtime, mailbox: int
) -> None:
    names = [f"<{number}@x>" for number in range(300)]
    original = stored(runtime, mailbox, 1, [["References", " ".join(names)]])

    uid = door({"to": "bob@far.example", "text": "x", "reply_to_message": str(original)}, None)

    references = request(runtime, uid)["references"]
    assert (references[0], references[1:-1]) == (names[0], names[-98:])
    assert references[-1] == "<1@far.example>"


@pytest.mark.parametrize("name", [None, "<no good>", "<\u00e9@x>"])
def test_a_message_without_a_proper_id_is_answered_without_a_thread(
    door: Door, runtime: Runtime, mailbox: int, name: str | None
) -> None:
    original = stored(runtime, mailbox, 1, [], name=name)

    uid = door({"to": "bob@far.example", "text": "x", "reply_to_message": str(original)}, None)

    assert not {"in_reply_to", "references", "reply_to_message"} & set(request(runtime, uid))


def test_another_mailboxs_message_cannot_be_answered(door: Door, mailbox: int) -> None:
    elsewhere = "01890a5d-ac96-774b-bcce-b302099a8057"
    with pytest.raises((UserError, DBAPIError, Refused)) as refused:
        door({"to": "bob@far.example", "reply_to_message": elsewhere}, None)
    assert code_of(refused.value) == "original_unknown"
    for bad in ("5", 5):
        with pytest.raises((UserError, DBAPIError, Refused)) as refused:
            door({"to": "bob@far.example", "reply_to_message": bad}, None)
        assert code_of(refused.value) == "message_invalid"


def test_templates_are_changed_by_who_manages_mailboxes_and_seen_by_who_sends(runtime: Runtime) -> None:
    keep(runtime)
    with runtime.db.begin() as session:
        access.add_user(SYSTEM, session, "ben")
    ben = Actor("ben")
    calls: list[Callable[[Any], object]] = [
        lambda session: outbound.store_template(ben, session, "x", WORDS),
        lambda session: outbound.remove_template(ben, session, "order"),
        lambda session: outbound.templates(ben, session),
        lambda session: outbound.show_template(ben, session, "order"),
        lambda session: outbound.preview_template(ben, session, "order", VARIABLES),
    ]
    for call in calls:
        with runtime.db.begin() as session, pytest.raises(PermissionDenied):
            call(session)
    with runtime.db.begin() as session:
        trail = access.list_audit(ADMINISTRATOR, session)
    assert [(entry.action, entry.name) for entry in trail if entry.kind == "template"] == [
        ("template.added", "order")
    ]


def test_the_command_line_keeps_shows_fills_in_and_sends(
    run: Run, runtime: Runtime, mailbox: int, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("Dear {{ name }},\nnumber {{ order.number }}.\n")
    (tmp_path / "values.json").write_text('{"order": {"number": 17}, "name": "nobody"}')
    kept = run(
        "--json", "template", "set", "order", "--subject", "{{ name }}", "--text-file", str(tmp_path / "text")
    )
    assert told(kept) == {"name": "order", "added": True}
    assert [
        row["name"] for row in map(json.loads, run("--json", "template", "list").stdout.splitlines())
    ] == ["order"]
    given = ("--variables-file", str(tmp_path / "values.json"), "--variable", "name=Ben")
    assert told(run("--json", "template", "preview", "order", *given)) == {
        "subject": "Ben", "text": "Dear Ben,\nnumber 17.\n", "html": None,
    }  # fmt: skip
    original = stored(runtime, mailbox, 1, [])

    sent = told(
        run(
            "--json", "send", "--from", ADDRESS, "--template", "order", *given,
            "--reply-to-message", str(original),
        )
    )  # fmt: skip
    assert request(runtime, UUID(sent["id"]))["to"] == ["bob@far.example"]
    plain = told(run("--json", "send", "--from", ADDRESS, "--text", "x", "--reply-to-message", str(original)))
    assert request(runtime, UUID(plain["id"]))["subject"] == "Re: Tea"
    raw = run(
        "--json", "send", "--from", ADDRESS, "--raw", "-", text=f"From: {ADDRESS}\nTo: b@far.example\n\nx\n"
    )
    assert request(runtime, UUID(told(raw)["id"]))["raw"]

    for words in (
        ("template", "show", "nosuch"),
        ("template", "remove", "nosuch"),
        ("template", "set", "bad"),
    ):
        failed = run(*words)
        assert (failed.returncode, failed.stdout, len(failed.stderr.splitlines())) == (1, "", 1)
    assert run("template", "remove", "order").returncode == 0
