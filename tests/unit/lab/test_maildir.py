"""Maildir files: names with true sizes, bytes that IMAP would serve as they were given."""

import hashlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.servers.maildir import Maildir, canonical, digest


def test_a_delivered_file_tells_its_sizes(tmp_path: Path) -> None:
    path = Maildir(tmp_path).deliver(b"Subject: x\r\n\r\nbody\r\n")

    assert path.parent == tmp_path / "new"
    assert path.read_bytes() == b"Subject: x\n\nbody\n"
    sizes = re.search(r",S=(\d+),W=(\d+)$", path.name)
    assert sizes is not None
    assert sizes.groups() == ("17", "20")


def test_files_come_in_order_of_delivery_from_new_and_cur(tmp_path: Path) -> None:
    box = Maildir(tmp_path)
    paths = [box.deliver(b"Subject: %d\r\n\r\n" % number) for number in range(30)]
    read = tmp_path / "cur" / (paths[7].name + ":2,S")
    paths[7].rename(read)

    assert box.files() == [*paths[:7], read, *paths[8:]]


def test_folders_have_maildir_names(tmp_path: Path) -> None:
    box = Maildir(tmp_path)
    box.deliver(b"x\r\n", "Grüße/unten")

    assert (tmp_path / ".Gr&APwA3w-e.unten" / "new").is_dir()
    assert box.folders() == ["INBOX", "Grüße/unten"]
    with pytest.raises(ValueError, match="dot"):
        box.deliver(b"x", "a.b")


def test_an_empty_folder_has_no_files(tmp_path: Path) -> None:
    assert Maildir(tmp_path).files("Nothing") == []


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\xff"]), max_size=30).map(b"".join))
def test_what_is_stored_is_served_as_given(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = Maildir(tmp_path_factory.getbasetemp() / "property").deliver(data)

    assert canonical(path.read_bytes()) == canonical(data)


def test_a_digest_is_that_of_the_crlf_form_without_nul() -> None:
    assert digest(b"a\nb\r\n\0") == hashlib.sha256(b"a\r\nb\r\n\x80").hexdigest()
