"""A message that lies in a file reads as one that is held: windows leave no seam."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.corpus import generate, small
from tasks.wire import bulk
from tasks.wire.bulk import Bulk, Spool, sha256
from tasks.wire.mime import part_bytes, read, transfer
from tasks.wire.mime.transfer import decode_transfer, digest_transfer
from tests.unit.mime.test_read_property import CALM


def in_file(raw: bytes) -> Bulk:
    """``raw``, where large messages lie."""
    spool = Spool()
    spool.write(memoryview(raw))
    return spool.finish()


@contextmanager
def windows_of(size: int) -> Iterator[None]:
    """Everything is large, and looked at through windows of ``size`` bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "WINDOW", size)
        patch.setattr(bulk, "RESIDENT", size)
        patch.setattr(transfer, "LARGE", 0)
        yield


def assert_same(raw: bytes, size: int) -> None:
    held = read(raw)
    parts = {each.part: part_bytes(raw, each.part) for each in held.attachments}
    with windows_of(size):
        filed = in_file(raw)
        assert read(filed) == held
        assert sha256(filed) == sha256(raw)
        assert {part: part_bytes(filed, part) for part in parts} == parts


@pytest.mark.parametrize("size", [7, 4096])
def test_the_corpus_reads_the_same(size: int) -> None:
    for raw in (*small(60, 5), *generate(30, 5, mean_size=4000 if size < 100 else 26_000)):
        assert_same(raw, size)
        assert_same(raw.replace(b"\r\n", b"\n"), size)


PIECES = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"--b", b"--b--", b"--", b" ", b"\t", b"=", b"==", b"=\r\n", b"QUJD",
    b"QQ", b"Q", b"!", b"\0\xff", b"=C3=BC", b"begin 644 x\n", b"#0V%T\n", b"end\n", b"Subject: a\r\n",
    b"From x\n",    b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: text/html\r\n",
    b"Content-Type: application/x; name=x\r\n", b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n", b"Content-Transfer-Encoding: x-uuencode\r\n",
)  # fmt: skip
SIZE = st.integers(1, 40)


@CALM
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=40).map(b"".join), SIZE)
def test_any_mail_reads_the_same(raw: bytes, size: int) -> None:
    assert_same(raw, size)


@pytest.mark.parametrize("encoding", ["", "base64", "quoted-printable", "x-uuencode", "x-other"])
def test_a_part_decoded_by_window_is_the_part_decoded_whole(encoding: str) -> None:
    @CALM
    @given(st.lists(st.sampled_from(PIECES[:21]), min_size=1, max_size=40).map(b"".join), SIZE)
    def check(part: bytes, size: int) -> None:
        decoded, defect = decode_transfer(part, encoding)
        with windows_of(size):
            found = digest_transfer(in_file(b"ab" + part + b"=c"), 2, 2 + len(part), encoding)
        assert found == (len(decoded), sha256(decoded), defect)

    check()


@CALM
@given(st.lists(st.sampled_from([b"a", b"b", b"ab"]), min_size=1).map(b"".join), st.data())
def test_a_search_finds_what_it_finds_in_bytes(raw: bytes, data: st.DataObject) -> None:
    sub = data.draw(st.sampled_from([b"a", b"ab", b"aab", b"abab"]))
    start, end = data.draw(st.integers(0, len(raw) + 1)), data.draw(st.integers(0, len(raw) + 1))
    with windows_of(data.draw(st.integers(1, 5))):
        assert in_file(raw).find(sub, start, end) == raw.find(sub, start, end)
        assert in_file(raw).startswith(sub, start, end) == raw.startswith(sub, start, end)
