"""The corpus: the same for the same seed, of the promised sizes and shapes."""

import email
import hashlib
import re
from collections import Counter
from email.message import Message
from statistics import mean

from lab.corpus import generate, small


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert list(generate(50, seed=4)) == list(generate(50, seed=4))
    assert list(generate(50, seed=4)) != list(generate(50, seed=5))


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    assert list(generate(80, seed=4))[:30] == list(generate(30, seed=4))


def test_no_message_comes_twice() -> None:
    digests = {hashlib.sha256(message).digest() for message in generate(2000, seed=2)}

    assert len(digests) == 2000


def test_message_ids_are_unique_and_a_few_are_missing() -> None:
    ids = [_field(message, b"Message-ID") for message in generate(2000, seed=2)]
    present = [each for each in ids if each]

    assert len(set(present)) == len(present)
    assert 5 <= len(ids) - len(present) <= 80


def test_sizes_have_the_mean_asked_for_and_a_long_tail() -> None:
    sizes = sorted(len(message) for message in generate(4000, seed=3))

    assert 22_000 < mean(sizes) < 30_000
    assert sizes[2000] < mean(sizes) * 0.7
    assert sizes[-1] > 300_000
    assert 1_700 < mean(len(message) for message in small(4000, seed=3)) < 2_500


def test_every_line_ends_in_crlf_and_is_short_enough_to_send() -> None:
    for message in small(1500, seed=6):
        assert not re.search(rb"(?<!\r)\n|\r(?!\n)", message)
        assert all(len(line) <= 998 for line in message.split(b"\r\n") if not line.startswith(b"X-Huge"))


def test_at_least_a_quarter_has_real_mime_and_every_promised_kind_is_there() -> None:
    messages = list(small(3000, seed=8))
    parsed = [email.message_from_bytes(message) for message in messages]
    kinds = Counter(part.get_content_type() for message in parsed for part in message.walk())
    charsets = {part.get_content_charset() for message in parsed for part in message.walk()}

    assert sum(message.is_multipart() for message in parsed) > len(parsed) / 4
    assert {"multipart/alternative", "multipart/mixed", "multipart/related", "message/rfc822"} <= kinds.keys()
    assert {"message/delivery-status", "message/feedback-report", "text/html"} <= kinds.keys()
    assert {"iso-8859-1", "koi8-r", "iso-2022-jp", "gb2312", "x-klingon"} <= charsets
    for mark in (
        b"List-Id: ",
        b"Auto-Submitted: ",
        b"filename*=utf-8''",
        b'filename="=?utf-8?',
        b"\0",
        b"X-Huge",
    ):
        assert any(mark in message for message in messages), mark
    assert any(not message.keys() for message in parsed)


def test_encoded_text_decodes_without_a_scratch() -> None:
    """Bodies are cut from pools: never within a character or an escape sequence."""
    decoded = 0
    for message in small(1500, seed=9):
        for part in email.message_from_bytes(message).walk():
            if _well_formed_text(part):
                payload = part.get_payload(decode=True)
                assert isinstance(payload, bytes)
                payload.decode(str(part.get_content_charset()))
                decoded += 1

    assert decoded > 1000


def test_replies_name_earlier_messages() -> None:
    seen: set[bytes] = set()
    replies = 0
    for message in small(600, seed=1):
        parent = _field(message, b"In-Reply-To")
        if parent:
            replies += 1
            assert parent in seen
        if me := _field(message, b"Message-ID"):
            seen.add(me)

    assert replies > 100


def _field(message: bytes, name: bytes) -> bytes | None:
    head = b"\r\n" + message.partition(b"\r\n\r\n")[0] + b"\r\n"
    found = re.search(rb"\r\n%s: (\S+)\r\n" % name, head)
    return found[1] if found else None


def _well_formed_text(part: Message) -> bool:
    return (
        part.get_content_maintype() == "text"
        and not part.get_filename()
        and part.get_content_charset() not in (None, "x-klingon", "us-ascii")
        and b"\0" not in bytes(part)
    )
