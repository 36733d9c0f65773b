"""The key ring: sealing, opening, growing, shrinking; nothing shown."""

import pickle
import stat
import traceback
from pathlib import Path

import pytest

from config.errors import UserError
from tasks.secrets import append_key, keep_only, new_key_line, parse_key_ring, read_key_ring


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ring file with one key."""
    made = tmp_path / "home" / "keyring"
    append_key(made, new_key_line())
    return made


def test_what_is_sealed_opens_with_the_same_context_only(path: Path) -> None:
    ring = read_key_ring(path)
    sealed = ring.seal("hunter2", "mailbox:1|a")

    assert ring.open(sealed, "mailbox:1|a") == "hunter2"
    with pytest.raises(UserError):
        ring.open(sealed, "mailbox:1|b")


def test_the_file_is_its_owner_s_alone(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    append_key(path, new_key_line())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["keyring"]


def test_a_ring_at_work_opens_what_a_later_key_sealed(path: Path) -> None:
    at_work = read_key_ring(path)
    append_key(path, new_key_line())
    rotated = read_key_ring(path)
    sealed = rotated.seal("hunter2", "c")

    assert at_work.open(sealed, "c") == "hunter2"


def test_a_ring_at_work_seals_under_the_newest_key(path: Path) -> None:
    at_work = read_key_ring(path)
    append_key(path, new_key_line())

    assert at_work.seal("hunter2", "c").key_id == read_key_ring(path).active


def test_a_ring_whose_file_vanished_goes_on_with_what_it_has(path: Path) -> None:
    ring = read_key_ring(path)
    path.unlink()

    assert ring.open(ring.seal("hunter2", "c"), "c") == "hunter2"


def test_a_key_that_is_gone_is_named_with_the_way_on(path: Path) -> None:
    sealed = parse_key_ring("gone:" + new_key_line().partition(":")[2], "test").seal("hunter2", "c")

    with pytest.raises(UserError, match='lacks key "gone"'):
        read_key_ring(path).open(sealed, "c")


def test_dropping_keeps_one_key(path: Path) -> None:
    old = read_key_ring(path).active
    append_key(path, new_key_line())
    active = read_key_ring(path).active

    assert keep_only(path, active) == [old]
    assert [name for name, _ in read_key_ring(path).keys] == [active]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["", "k1", "k1:", "k1:AAAA", ":" + "A" * 43 + "=", "k1:*"])
def test_a_malformed_ring_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_key_ring(text, "the test")

    assert "AAAA" not in str(caught.value)


def test_no_key_shows_in_repr_or_traceback(path: Path) -> None:
    ring = read_key_ring(path)
    encoded = path.read_text().partition(":")[2].strip()
    sealed = ring.seal("hunter2", "c")
    try:
        ring.open(sealed, "another")
    except UserError as error:
        shown = "".join(traceback.format_exception(error))
    shown += repr(ring) + repr(sealed)

    assert encoded not in shown
    assert repr(ring.keys[0][1]) not in shown
    assert "hunter2" not in shown
    assert b"hunter2" not in pickle.dumps(sealed)
