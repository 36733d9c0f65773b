"""A logo is what its content is."""

import contextlib
import struct
import zlib
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import UserError
from tasks.providers import LOGO_BYTES, check_logo, read_logo

GIF = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
WEBP = b64decode("UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAwA0JaQAA3AA/vuUAAA=")
JPEG = b64decode(
    "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////////////////////////////////////////"
    "////////////////////wgALCAABAAEBAREA/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQABPxA="
)
SVG = (
    b'<?xml version="1.0"?>\n'
    b'<svg xmlns="http://www.w3.org/2000/svg" width="1"><script>alert(1)</script></svg>'
)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


PNG = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    + _chunk(b"IDAT", zlib.compress(b"\0\0"))
    + _chunk(b"IEND", b"")
)
JPEG_WHOLE = JPEG if JPEG.endswith(b"\xff\xd9") else JPEG + b"\0\xff\xd9"


@pytest.mark.parametrize(
    ("content", "media"),
    [
        (PNG, "image/png"),
        (JPEG_WHOLE, "image/jpeg"),
        (GIF, "image/gif"),
        (WEBP, "image/webp"),
        (SVG, "image/svg+xml"),
        (b"\xef\xbb\xbf\n" + SVG.removeprefix(b'<?xml version="1.0"?>\n'), "image/svg+xml"),
        (SVG.decode().encode("utf-16"), "image/svg+xml"),
    ],
)
def test_each_format_is_known_by_its_content(content: bytes, media: str) -> None:
    logo = check_logo(content)
    assert (logo.type, logo.content) == (media, content)


@pytest.mark.parametrize("content", [PNG, JPEG_WHOLE, GIF, WEBP, SVG])
def test_a_picture_that_is_cut_off_is_refused(content: bytes) -> None:
    for end in range(0, len(content) - 1, 7):
        with pytest.raises(UserError, match="logo"):
            check_logo(content[:end])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"I am no picture",
        PNG[:8] + b"I only begin like one" * 40,
        PNG.replace(b"IDAT", b"JUNK"),
        PNG[:16] + b"\0\0\0\0" + PNG[20:],
        b"BM" + b"\0" * 60,
        b"%PDF-1.7",
        b"<html><body>hello</body></html>",
        b"<svg><g></svg>",
        b'<svg width="1"/>',
        b'<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg">&a;</svg>',
        b'<!DOCTYPE svg SYSTEM "file:///etc/passwd"><svg xmlns="http://www.w3.org/2000/svg"/>',
        b'<?xml version="1.0" encoding="nonsense"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        b'<?xml version="1.0" encoding="shift_jis"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        b'<?xml version="1.0" encoding="idna"?><svg xmlns="http://www.w3.org/2000/svg"/>',
    ],
)
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(UserError, match="logo"):
        check_logo(content)


def test_a_billion_laughs_ends_at_the_first_declaration() -> None:
    bomb = (
        b"<!DOCTYPE l ["
        + b"".join(b'<!ENTITY l%d "%s">' % (n + 1, b"&l%d;" % n * 10) for n in range(9))
        + b']><svg xmlns="http://www.w3.org/2000/svg">&l9;</svg>'
    )
    with pytest.raises(UserError, match="DOCTYPE"):
        check_logo(bomb)


def test_256_kib_fit_and_one_byte_more_does_not() -> None:
    room = LOGO_BYTES - len(PNG) - 12
    padded = PNG[:-12] + _chunk(b"teXt", b"x" * room) + PNG[-12:]
    assert len(padded) == LOGO_BYTES
    assert check_logo(padded).type == "image/png"
    with pytest.raises(UserError, match="256 KiB"):
        check_logo(padded + b"x")


def test_a_huge_file_is_read_no_further_than_the_limit(tmp_path: Path) -> None:
    huge = tmp_path / "logo.png"
    with huge.open("wb") as file:
        file.write(PNG)
        file.truncate(10 * 2**20)
    assert len(read_logo(huge)) == LOGO_BYTES + 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.png.*No such file"):
        read_logo(tmp_path / "nothing.png")
    with pytest.raises(UserError, match="directory"):
        read_logo(tmp_path)


@given(st.sampled_from([PNG, JPEG_WHOLE, GIF, WEBP, SVG]), st.data())
def test_damage_is_an_answer_never_a_crash(content: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255))
    damaged = content[:place] + bytes([byte]) + content[place + 1 :]
    with contextlib.suppress(UserError):
        assert check_logo(damaged).content == damaged
