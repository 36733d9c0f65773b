"""Values that must not tell a password."""

import pytest

from config.errors import UserError
from schema.tables.providers import LoginMode, Provider
from tasks.mailboxes import NewMailbox
from tasks.mailboxes.plan import check_folders, check_numbers, derive_login
from tasks.mailboxes.values import check_password


def test_a_wish_does_not_show_its_password() -> None:
    assert "hunter2" not in repr(NewMailbox("anna@a.example", "hunter2"))


@pytest.mark.parametrize("password", ["", "two\nlines", "nul\0", "x" * 1025])
def test_a_password_that_no_server_could_take_is_refused_without_being_shown(password: str) -> None:
    with pytest.raises(UserError) as caught:
        check_password(password)

    assert not password or password not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "given", "login"),
    [
        (LoginMode.EMAIL, None, "test@google.com"),
        (LoginMode.USER, None, "test"),
        (LoginMode.MANUAL, "t.est", "t.est"),
        (LoginMode.EMAIL, "other", "other"),
    ],
)
def test_a_login_is_derived_by_the_provider_s_mode(mode: LoginMode, given: str | None, login: str) -> None:
    provider = Provider(name="Google", login_mode=mode)

    assert derive_login(provider, "test", "test@google.com", given) == login


def test_a_manual_login_must_be_given() -> None:
    with pytest.raises(UserError, match="--login LOGIN"):
        derive_login(Provider(name="Google", login_mode=LoginMode.MANUAL), "test", "test@google.com", None)


@pytest.mark.parametrize("login", ["", "  ", "a\nb", "x" * 321])
def test_a_login_that_no_server_could_take_is_refused(login: str) -> None:
    with pytest.raises(UserError):
        derive_login(Provider(name="Google", login_mode=LoginMode.EMAIL), "test", "test@google.com", login)


@pytest.mark.parametrize(("days", "seconds"), [(-1, None), (None, 0.5), (None, float("nan")), (40_000, None)])
def test_numbers_without_sense_are_refused(days: int | None, seconds: float | None) -> None:
    with pytest.raises(UserError):
        check_numbers(days, seconds)


@pytest.mark.parametrize("folders", [(), (" ",), ("a\nb",)])
def test_folders_that_cannot_be_are_refused(folders: tuple[str, ...]) -> None:
    with pytest.raises(UserError):
        check_folders(folders)
