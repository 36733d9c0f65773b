"""What may stand in a name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import UserError
from tasks.access import clean_name, parse_operation, quoted
from tasks.access.values import Operation


@pytest.mark.parametrize("name", ["", "   ", "x" * 251, "a\x00b", "a\nb", "a\x1b[31mb", "a\u202eb", "\ud800"])
def test_a_name_that_would_mislead_or_not_fit_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="name of a user"):
        clean_name(name, "user")


@pytest.mark.parametrize("name", ["a", "x" * 250, "Zoë Ünal", "日本", "o'neil & co; rm -rf"])
def test_a_name_of_1_to_250_printable_characters_is_kept(name: str) -> None:
    assert clean_name(name, "user") == name


def test_two_spellings_of_one_name_become_one() -> None:
    assert clean_name(" Zoe\u0308 ", "user") == "Zoë"


@given(st.text())
def test_a_quoted_name_is_one_short_printable_line(name: str) -> None:
    shown = quoted(name)
    assert len(shown) <= 122
    assert len(shown.splitlines()) == 1
    assert "\x1b" not in shown


def test_an_operation_is_found_in_any_case_and_an_unknown_one_lists_them() -> None:
    assert parse_operation("canmanageadministration") is Operation.MANAGE_ADMINISTRATION
    with pytest.raises(UserError, match="CanManageMailboxes"):
        parse_operation("CanFly")
