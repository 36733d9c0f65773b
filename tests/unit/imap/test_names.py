"""Folder names, and what folders are for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.wire.imap.items import ListItems
from tasks.wire.imap.names import listed, shown_name, wire_name


@pytest.mark.parametrize(
    ("wire", "shown"),
    [
        (b"INBOX", "INBOX"),
        (b"Entw&APw-rfe", "Entwürfe"),
        (b"Q&-A", "Q&A"),
        ("Entwürfe".encode(), "Entwürfe"),
        (b"bad\xff", "bad\\xff"),
        (b"a&2AA-b", "a&2AA-b"),
        (b"a&AAA-b", "a&AAA-b"),
        (b"a\x07b", "a\\x07b"),
    ],
)
def test_a_name_is_decoded_or_shown_as_it_came(wire: bytes, shown: str) -> None:
    assert shown_name(wire) == shown


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=20))
def test_a_name_told_comes_back(name: str) -> None:
    assert shown_name(wire_name(name)) == name


@given(st.binary(max_size=40))
def test_any_name_can_be_shown_and_stored(wire: bytes) -> None:
    shown_name(wire).encode("utf-8")
    assert "\0" not in shown_name(wire)


def test_told_uses_win_over_guessed_ones() -> None:
    told = listed([ListItems((), "/", b"Sent"), ListItems(("\\Sent",), "/", b"Raus")])

    assert [folder.special_use for folder in told] == [None, "\\Sent"]


@pytest.mark.parametrize("name", [b"Sent", b"INBOX.Sent", b"Gesendete Elemente", b"Sent Messages"])
def test_sent_is_guessed_by_its_name(name: bytes) -> None:
    (folder,) = listed([ListItems((), ".", name)])

    assert folder.special_use == "\\Sent"


def test_the_likeliest_selectable_sent_is_guessed() -> None:
    found = listed(
        [ListItems((), "/", b"Sent Items"), ListItems((), "/", b"Sent"), ListItems((), "/", b"a/b/Sent")]
    )
    assert [folder.special_use for folder in found] == [None, "\\Sent", None]

    found = listed([ListItems(("\\NoSelect",), "/", b"Sent"), ListItems((), "/", b"Sent Items")])
    assert [(folder.selectable, folder.special_use) for folder in found] == [(False, None), (True, "\\Sent")]


def test_a_folder_listed_twice_is_one() -> None:
    assert len(listed([ListItems((), "/", b"Inbox"), ListItems((), "/", b"INBOX")])) == 1
