"""What is asked for is what the standard parser reads in the bytes; what must not go in is refused."""

import base64
import email
import json
from datetime import UTC, datetime
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import schema
from config.errors import UserError
from tasks.outbound.compose import Composed, Sender, compose
from tasks.outbound.values import read

SENDER = Sender("anna@home.example", "Anna Ö", ("sales@home.example",), 5, None)
UID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
SCHEMA = jsonschema.Draft202012Validator(
    json.loads((Path(schema.__file__).parent / "messages/outbound.schema.json").read_text())
)

WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=120)
TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\0")
)


def composed(message: dict[str, Any], sender: Sender = SENDER) -> Composed:
    return compose(read(message), sender, UID, NOW)


def parsed(message: dict[str, Any]) -> EmailMessage:
    found = email.message_from_bytes(composed(message).content, policy=policy.default)
    assert isinstance(found, EmailMessage)
    return found


def lines(text: str) -> str:
    """Line ends as they are read back: none is bare, and the text ends with one."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text + "\n" if text and not text.endswith("\n") else text


@settings(max_examples=150, deadline=None)
@given(subject=WORDS, text=TEXT, name=WORDS, file_name=WORDS, content=st.binary(max_size=300))
def test_the_standard_parser_reads_what_was_asked_for(
    subject: str, text: str, name: str, file_name: str, content: bytes
) -> None:
    mail = {
        "to": {"name": name, "address": "bob@far.example"},
        "subject": subject,
        "text": text,
        "html": f"<p>{text}",
        "attachments": [{"name": file_name, "content": base64.b64encode(content).decode()}],
    }
    bytes_ = composed(mail).content
    found = parsed(mail)

    assert bytes_.count(b"\n") == bytes_.count(b"\r\n") == bytes_.count(b"\r")
    assert max(map(len, bytes_.split(b"\r\n"))) <= 998
    assert bytes_.isascii()
    assert found["subject"] == subject
    ((shown, address),) = getaddresses([email.message_from_bytes(bytes_)["to"]])
    assert address == "bob@far.example"
    assert str(make_header(decode_header(shown))).split() == name.split()  # the newer parser adds spaces
    plain_part = found.get_body(("plain",))
    assert plain_part is not None
    assert plain_part.get_content().replace("\r\n", "\n") == lines(text)
    (attached,) = found.iter_attachments()
    assert (attached.get_filename() or "").split() == file_name.split()
    assert attached.get_content() == content


def test_bytes_are_fixed_by_message_id_and_time() -> None:
    mail = {"to": "bob@far.example", "text": "x", "html": "<p>x"}
    assert composed(mail) == composed(mail)
    assert composed(mail).message_id == "<01890a5dac96774bbcceb302099a8057@home.example>"
    assert parsed(mail)["date"].datetime == NOW


def test_bcc_is_in_the_envelope_and_nowhere_else() -> None:
    made = composed({"to": "bob@far.example", "bcc": ["eve@far.example"], "text": "x"})
    assert [r.address for r in made.recipients] == ["bob@far.example", "eve@far.example"]
    assert b"eve" not in made.content

    raw = b"From: anna@home.example\nTo: bob@far.example\nBcc: eve@far.example,\n zoe@far.example\n\nx\n"
    made = composed({"raw": base64.b64encode(raw).decode()})
    assert [r.address for r in made.recipients] == ["bob@far.example", "eve@far.example", "zoe@far.example"]
    assert b"eve" not in made.content
    assert b"zoe" not in made.content
    assert b"\r\n\r\nx\r\n" in made.content


def test_international_domains_become_a_labels_and_local_parts_ask_for_smtputf8() -> None:
    made = composed({"to": "bob@bücher.example"})
    assert (made.recipients[0].address, made.smtputf8) == ("bob@xn--bcher-kva.example", False)
    made = composed({"to": "jörg@far.example"})
    assert (made.recipients[0].address, made.smtputf8) == ("jörg@far.example", True)


def test_answers_keep_the_thread() -> None:
    found = parsed({"to": "b@far.example", "in_reply_to": "<1@x>", "references": ["<0@x>", "<1@x>"]})
    assert found["in-reply-to"] == "<1@x>"
    assert found["references"].split() == ["<0@x>", "<1@x>"]


INJECTED = ["a\r\nBcc: eve@far.example", "a\nX: y", "a\rX: y", "a\0b", "a\u2028b", "a\x85b"]


HOSTILE = st.lists(
    st.sampled_from(
        [
            *'\r\n\u2028\x85\x00\x0b\t: <>,;()é"\\',
            *("\r\n", "X-Evil: 1", "Bcc: eve@far.example", "a@far.example", "=0d=0a"),
            "=?utf-8?q?=0d=0aX-Evil:_1?=",
        ]
    ),
    max_size=6,
).map("".join)
WHOLE = st.fixed_dictionaries(
    {},
    optional={
        **{name: HOSTILE | st.just("b@far.example") for name in ("to", "cc", "bcc", "reply_to")},
        **dict.fromkeys(("subject", "text", "html", "in_reply_to", "references"), HOSTILE),
        "headers": st.dictionaries(HOSTILE | st.just("X-A"), HOSTILE, max_size=2),
        "attachments": st.lists(
            st.fixed_dictionaries(
                {"content": st.just("eA==")},
                optional=dict.fromkeys(("name", "content_type", "content_id"), HOSTILE),
            ),
            max_size=2,
        ),
    },
)
OURS = {"from", "to", "cc", "reply-to", "subject", "date", "message-id", "in-reply-to", "references"}


@settings(max_examples=600, deadline=None)
@given(WHOLE)
def test_whatever_the_fields_hold_the_header_has_only_what_was_asked_for(message: dict[str, Any]) -> None:
    message = {"to": "bob@far.example", **message}
    try:
        made = composed(message)
    except UserError:
        return
    head = made.content.partition(b"\r\n\r\n")[0].decode()
    names = [line.partition(":")[0].lower() for line in head.split("\r\n") if line[:1] not in (" ", "\t")]
    asked = {name.lower() for name in message.get("headers", {})}
    assert set(names) <= OURS | {"mime-version", "content-type", "content-transfer-encoding"} | asked
    assert len(names) == len(set(names))
    parts = list(email.message_from_bytes(made.content).walk())
    assert all({name.lower() for name in dict(part)} <= PART for part in parts[1:])
    assert len([part for part in parts if not part.is_multipart()]) == (
        max(1, ("text" in message) + ("html" in message)) + len(message.get("attachments", []))
    )


PART = {"content-type", "content-transfer-encoding", "content-disposition", "content-id"}


@pytest.mark.parametrize("bad", INJECTED)
@pytest.mark.parametrize(
    "field",
    ["from", "to", "cc", "bcc", "reply_to", "subject", "in_reply_to", "references"],
)
def test_no_field_carries_a_line_end_into_a_header(field: str, bad: str) -> None:
    addressed = field in ("from", "to", "cc", "bcc", "reply_to")
    value: Any = f"{bad} <a@far.example>" if addressed else f"<{bad}@x>" if field != "subject" else bad
    message = {"to": "bob@far.example", field: value}
    with pytest.raises(UserError) as refused:
        composed(message)
    assert refused.value.code == "header_injection"
    assert not SCHEMA.is_valid(message)


@pytest.mark.parametrize("bad", INJECTED)
@pytest.mark.parametrize(
    "extra",
    [
        lambda bad: {"headers": {"X-A": bad}},
        lambda bad: {"headers": {bad: "x"}},
        lambda bad: {"to": {"name": bad, "address": "a@far.example"}},
        lambda bad: {"to": {"name": "x", "address": f"{bad}@far.example"}},
        lambda bad: {"attachments": [{"name": bad, "content": ""}]},
        lambda bad: {"attachments": [{"content_type": f"text/{bad}", "content": ""}]},
        lambda bad: {"attachments": [{"content_id": bad, "content": ""}]},
    ],
)
def test_no_part_carries_a_line_end_into_a_header(extra: Any, bad: str) -> None:
    with pytest.raises(UserError) as refused:
        composed({"to": "bob@far.example", **extra(bad)})
    assert refused.value.code == "header_injection"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({}, "no_recipients"),
        ({"to": []}, "no_recipients"),
        ({"to": "nobody"}, "address_invalid"),
        ({"to": "a b@far.example"}, "address_invalid"),
        ({"to": "a@-far.example"}, "address_invalid"),
        ({"to": 5}, "address_invalid"),
        ({"to": [f"{n}@far.example" for n in range(6)]}, "too_many_recipients"),
        ({"to": "b@far.example", "from": "ceo@home.example"}, "sender_not_allowed"),
        ({"to": "b@far.example", "headers": {"Bcc": "e@far.example"}}, "header_forbidden"),
        ({"to": "b@far.example", "headers": {"Return-Path": "<>"}}, "header_forbidden"),
        ({"to": "b@far.example", "headers": {"X-Mailwright-Attempt": "1"}}, "header_forbidden"),
        ({"to": "b@far.example", "headers": {"Content-Type": "text/html"}}, "header_forbidden"),
        ({"to": "b@far.example", "headers": {"A:B": "x"}}, "message_invalid"),
        ({"to": "b@far.example", "colour": "red"}, "message_invalid"),
        ({"to": "b@far.example", "priority": 101}, "message_invalid"),
        ({"to": "b@far.example", "not_before": "soon"}, "message_invalid"),
        ({"to": "b@far.example", "attachments": [{"content": "%%%"}]}, "message_invalid"),
        ({"to": "b@far.example", "text": "\ud800"}, "message_invalid"),
        ({"raw": ""}, "message_invalid"),
        ({"raw": base64.b64encode(b"From: nobody\n\nx").decode()}, "address_invalid"),
        ({"raw": base64.b64encode(b"From: x@y.example\n\nx").decode()}, "sender_not_allowed"),
        ({"raw": "QUJD", "subject": "x"}, "message_invalid"),
    ],
)
def test_what_cannot_go_is_refused_with_its_code(message: dict[str, Any], code: str) -> None:
    with pytest.raises(UserError) as refused:
        composed(message)
    assert refused.value.code == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(sorted(SCHEMA.schema["properties"]))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(FIELDS, JSON, max_size=4), st.booleans())
def test_any_json_is_composed_or_refused_and_what_the_schema_refuses_is_refused(
    message: dict[str, Any], addressed: bool
) -> None:
    if addressed:
        message["to"] = "bob@far.example"
    try:
        composed(message)
    except UserError:
        return
    assert SCHEMA.is_valid(message), list(SCHEMA.iter_errors(message))


FIELD_LINES = st.lists(
    st.tuples(
        st.sampled_from(
            [b"From", b"To", b"Cc", b"Bcc", b"Subject", b"Message-ID", b"Date", b"X-A", b"", b"A B"]
        ),
        st.binary(max_size=40)
        | st.sampled_from([b" anna@home.example", b" =?utf-8?q?=ff?= \xff", b" <1@x>"]),
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(FIELD_LINES, st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_message_to_send_or_refused(
    fields: list[tuple[bytes, bytes]], body: bytes, signed: bool
) -> None:
    first = b"From: anna@home.example\n" if signed else b""
    raw = first + b"".join(name + b":" + value + b"\n" for name, value in fields) + b"\n" + body
    try:
        made = composed({"raw": base64.b64encode(raw).decode(), "to": "bob@far.example"})
    except UserError:
        return
    assert made.content.count(b"\n") == made.content.count(b"\r\n") == made.content.count(b"\r")
    header = made.content.partition(b"\r\n\r\n")[0].lower()
    assert b"\r\nbcc:" not in b"\r\n" + header
    assert header.count(b"message-id:") >= 1
    json.dumps(made.subject).encode()
    made.subject.encode()
