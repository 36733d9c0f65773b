"""What the reader does where the standard parser has no say, or is wrong: each difference with its reason."""

import base64
import hashlib
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tasks.wire.mime import Address, Limits, part_bytes, read
from tasks.wire.mime.charsets import codec_of
from tasks.wire.mime.subjects import base_subject


def test_a_close_right_after_a_boundary_closes() -> None:
    """The standard parser swallows the close and reads the epilogue as a part (RFC 2046 §5.1.1 has none)."""
    mail = read(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nbody\n--b\n--b--\nepilogue\n")
    assert mail.text == "body"


def test_a_close_before_any_boundary_drops_nothing() -> None:
    """The standard parser forgets that line and all after it."""
    mail = read(b"Content-Type: multipart/mixed; boundary=b\n\nbefore\n--b--\nafter\n")
    assert mail.text == "before\n--b--\nafter\n"
    assert mail.defects == ("boundary-not-found",)


def test_space_before_the_colon_is_a_field() -> None:
    """RFC 5322 §4.5.8; the standard parser takes such a line for the body."""
    mail = read(b"Subject : hi\r\nFrom: a@b\r\n\r\nbody")
    assert (mail.subject, mail.text) == ("hi", "body")


def test_a_lone_carriage_return_in_a_header_ends_nothing() -> None:
    """RFC 5322 §2.3; the standard parser loses all fields after it."""
    mail = read(b"Subject: one\rtwo\r\nFrom: a@b\r\n\r\nbody")
    assert (mail.subject, mail.from_, mail.text) == ("one two", (Address("", "a@b"),), "body")


def test_an_encoded_comma_divides_no_address() -> None:
    """RFC 2047 §5 forbids it raw in a phrase, much software writes it; the standard parser divides."""
    mail = read(b"From: =?utf-8?Q?M=C3=BCller,_Anna?= <anna@x.example>\r\n\r\n")
    assert mail.from_ == (Address("Müller, Anna", "anna@x.example"),)


def test_a_raw_utf8_value_may_end_with_what_latin_1_takes_for_space() -> None:
    """``à`` is C3 A0 and ``Å`` is C3 85: stripping before decoding would leave half a character."""
    raw = "Subject: voilà\r\nFrom: voilà là <a@x.example>\r\nTo: Å <b@x.example>\r\nX-A: Å \r\n\r\n"
    mail = read(raw.encode())
    assert (mail.subject, mail.headers[3]) == ("voilà", ("X-A", "Å"))
    assert mail.from_ == (Address("voilà là", "a@x.example"),)
    assert mail.to == (Address("Å", "b@x.example"),)


def test_a_raw_utf8_file_name_without_quotes_keeps_its_end() -> None:
    raw = "Content-Type: image/png\r\nContent-Disposition: attachment; filename=voilà ; x=y\r\n\r\n"
    assert read(raw.encode()).attachments[0].name == "voilà"


def test_words_without_an_at_are_a_name() -> None:
    """The standard parser makes the first word an address."""
    assert read(b"From: The Daily News\r\n\r\n").from_ == (Address("The Daily News", ""),)
    assert read(b"From: MAILER-DAEMON\r\n\r\n").from_ == (Address("", "MAILER-DAEMON"),)
    assert read(b"From: John Smith john@x.example\r\n\r\n").from_ == (
        Address("John Smith", "john@x.example"),
    )
    assert read(b"To: undisclosed-recipients:;\r\n\r\n").to == ()
    assert read(b"To: team: a@x, b@y;, c@z\r\n\r\n").to == (
        Address("", "a@x"),
        Address("", "b@y"),
        Address("", "c@z"),
    )


def test_the_extended_file_name_wins_over_its_fallback() -> None:
    """RFC 2231 is what the sender meant; the standard parser takes whichever is plain."""
    raw = b"Content-Disposition: attachment; filename=\"x.pdf\"; filename*=utf-8''%C3%9Cbersicht.pdf\r\n\r\n"
    assert read(raw).attachments[0].name == "Übersicht.pdf"


def test_junk_after_a_quoted_parameter_is_no_part_of_it() -> None:
    """The standard parser then keeps the quotes and the junk in the name."""
    raw = b'Content-Disposition: attachment; filename="x.txt" junk\r\n\r\n'
    assert read(raw).attachments[0].name == "x.txt"


def test_file_names_in_continuations_of_any_order() -> None:
    raw = (
        b"Content-Type: image/png\r\nContent-Disposition: attachment;\r\n"
        b" filename*1*=%20b; filename*0*=utf-8''%c3%a4;\r\n filename*2=\".png\"\r\n\r\n"
    )
    assert read(raw).attachments[0].name == "ä b.png"


def test_a_comment_after_the_transfer_encoding() -> None:
    """RFC 2045 §6.1 allows it; the standard parser then leaves the body encoded."""
    assert read(b"Content-Transfer-Encoding: Base64 (mime)\r\n\r\naGk=").text == "hi"


def test_base64_cut_off_in_transit_gives_what_is_there() -> None:
    """The standard parser gives back the encoded text; useless to who opens the attachment."""
    raw = b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nAAECAwQFB"
    (attachment,) = read(raw).attachments
    assert (part_bytes(raw, "1"), attachment.size) == (bytes(range(6)), 6)
    assert "base64-broken" in read(raw).defects


def test_a_message_in_the_message_is_one_attachment_with_its_own_bytes() -> None:
    inner = b"Subject: inner\r\nContent-Type: multipart/mixed; boundary=b2\r\n\r\n--b2\r\n\r\nx\r\n--b2--\r\n"
    raw = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nouter\r\n--b\r\n"
        b"Content-Type: message/rfc822\r\n\r\n" + inner + b"\r\n--b--\r\n"
    )
    mail = read(raw)
    assert mail.text == "outer"
    assert [(a.part, a.content_type, a.digest) for a in mail.attachments] == [
        ("2", "message/rfc822", hashlib.sha256(inner).digest())
    ]
    assert read(part_bytes(raw, "2")).subject == "inner"


def test_a_part_that_does_not_exist() -> None:
    with pytest.raises(KeyError, match="7"):
        part_bytes(b"\r\nhello", "7")


def test_list_and_auto_reply_fields() -> None:
    mail = read(
        b"List-Id: Talk <talk.example.net>\r\nAuto-Submitted: Auto-Replied; owner=x\r\n"
        b"List-Unsubscribe: <https://x.example/>\r\nMessage-ID: plain@id\r\n"
        b"In-Reply-To: <a\r\n @b>\r\nReferences: <1@x> <2@x> junk <1@x>\r\n"
        b"Date: Mon, 23 Nov 2026 10:00:00 +0100\r\n\r\n"
    )
    assert (mail.list_id, mail.auto_submitted, mail.list_unsubscribe) == (
        "talk.example.net",
        "auto-replied",
        "<https://x.example/>",
    )
    assert (mail.message_id, mail.in_reply_to, mail.references) == (
        "<plain@id>",
        ("<a@b>",),
        ("<1@x>", "<2@x>"),
    )
    assert mail.date == datetime(2026, 11, 23, 9, tzinfo=UTC)


def test_what_is_remembered_of_one_mail_obeys_the_limits_of_the_next() -> None:
    """Addresses, encoded words and headers of parts come again and again, and are read once."""
    part = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\nX: %060d\r\n\r\naGk=\r\n" % 0
    raw = (
        b"From: =?utf-8?q?J=C3=B6rg?= <j@x>, b@y, c@z\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n%s--b\r\n%s--b--\r\n" % (part, part)
    )
    whole = read(raw)
    assert (whole.from_[0], len(whole.from_), whole.text) == (Address("Jörg", "j@x"), 3, "hi\nhi")
    small = read(raw, Limits(addresses=2, header_bytes=100))
    assert small.from_ == whole.from_[:2]
    assert small.defects == ("headers-truncated", "addresses-truncated")
    assert read(raw) == whole


def test_a_header_of_a_part_is_remembered_with_its_faults() -> None:
    broken = b"--b\r\nContent-Type: text/html\r\nno field\r\n\r\nx\r\n"
    raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + broken + b"--b--\r\n"
    assert read(raw).defects == read(raw).defects == ("headers-unended",)
    assert read(raw).html == "no field\n\nx"


def test_nothing_at_all_header_only_and_no_header() -> None:
    assert (read(b"").text, read(b"").subject, read(b"").headers) == ("", "", ())
    assert read(b"Subject: x").subject == "x"
    assert read(b"just words\r\nmore").text == "just words\nmore"
    assert "headers-unended" in read(b"just words\r\nmore").defects


@pytest.mark.parametrize(
    ("subject", "base"),
    [
        ("Re: [list] AW: Fwd: Plan (fwd)", "plan"),
        ("RE[2]: Plan", "plan"),
        ("[Fwd: Re: Plan]", "plan"),
        ("Sv:  Große   Pläne", "grosse pläne"),
        ("[tag]", "[tag]"),
        ("[list] [tag]", "[tag]"),
        ("Re: ", ""),
        ("回复：计划", "计划"),  # noqa: RUF001
        ("Report: numbers", "report: numbers"),
    ],
)
def test_base_subjects(subject: str, base: str) -> None:
    assert base_subject(subject) == base


@pytest.mark.parametrize(
    ("label", "data", "text"),
    [
        ("us-ascii", "é".encode(), "é"),
        ("iso-8859-1", b"\x93x\x94", "“x”"),
        ("gb2312", "镕".encode("gbk"), "镕"),
        ("x-klingon", b"\xe9", "é"),
        ("utf-8", b"a\xc3(", "a\ufffd("),
        ("CP-1252", b"\x80", "€"),
        ("zlib", b"plain", "plain"),
        ("unicode_escape", b"\\u0041", "\\u0041"),
        ("idna", b"xn--a", "xn--a"),
        ("utf-16", b"a\0b", "ab"),
    ],
)
def test_labels_that_lie(label: str, data: bytes, text: str) -> None:
    raw = b"Content-Type: text/plain; charset=" + label.encode() + b"\r\n\r\n" + data
    assert read(raw).text == text


def test_no_codec_is_reached_that_is_no_charset() -> None:
    for label in (
        "zlib",
        "bz2",
        "hex",
        "rot13",
        "idna",
        "punycode",
        "unicode_escape",
        "undefined",
        "../x",
        "x" * 999,
    ):
        assert codec_of(label) is None


def nested(levels: int) -> bytes:
    return b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(levels)
    )


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "nested": lambda n: nested(n // 50),
    "parts": lambda n: b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * (n // 7),
    "one boundary, all levels": lambda n: b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" * (n // 48),
    "false boundaries": lambda n: b"Content-Type: multipart/mixed; boundary=b\n\n" + b"\n--bx" * (n // 5),
    "dashes": lambda n: b"Content-Type: multipart/mixed; boundary=" + b"-" * 70 + b"\n\n" + b"-" * n,
    "words": lambda n: b"Subject: " + b"=?a?q?x " * (n // 8),
    "words and an end": lambda n: b"Subject: " + b"=?" * (n // 2) + b"?=",
    "open angles": lambda n: b"From: " + b"<," * (n // 2),
    "comments": lambda n: b"From: " + b"(" * n,
    "quotes": lambda n: b"From: " + b'"\\' * (n // 2),
    "groups": lambda n: b"From: " + b"a:" * (n // 2),
    "parameters": lambda n: b"Content-Type: text/plain" + b';a="\\' * (n // 5),
    "continuations": lambda n: b"Content-Type: text/plain" + b"".join(b";a*%d=x" % k for k in range(n // 9)),
    "folds": lambda n: b"Subject: x" + b"\n " * (n // 2),
    "fields": lambda n: b"a:\n" * (n // 3),
    "carriage returns": lambda n: b"a:\r" * (n // 3),
    "one line": lambda n: b"x" * n,
    "tags": lambda n: b"Subject: " + b"[a]" * (n // 3),
    "replies": lambda n: b"Subject: " + b"re:" * (n // 3),
    "uuencode": lambda n: b"Content-Transfer-Encoding: uuencode\n\nbegin 644 x\n" + b"~\n" * (n // 2),
    "base64 junk": lambda n: b"Content-Transfer-Encoding: base64\n\n" + b"=*A" * (n // 3),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_mail_is_read_in_bounded_memory(kind: str) -> None:
    raw = HOSTILE[kind](2_000_000)
    tracemalloc.start()
    try:
        mail = read(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert mail.size == len(raw)
    assert len(mail.attachments) <= Limits().parts
    assert peak < 10 * len(raw)


def test_a_large_attachment_is_digested_in_little_memory() -> None:
    data = bytes(range(256)) * 80_000
    raw = b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(data)
    tracemalloc.start()
    try:
        (attachment,) = read(raw).attachments
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (attachment.size, attachment.digest) == (len(data), hashlib.sha256(data).digest())
    assert peak < 8 * 1024 * 1024
    assert part_bytes(raw, "1") == data


def test_a_large_quoted_printable_attachment_is_digested_like_the_whole() -> None:
    raw = (
        b"Content-Type: image/png\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        + b"caf=C3=A9 =\r\nline\r\n" * 200_000
    )
    (attachment,) = read(raw).attachments
    whole = part_bytes(raw, "1")
    assert (attachment.size, attachment.digest) == (len(whole), hashlib.sha256(whole).digest())
