"""The SASL messages that carry an access token."""

import pytest

from tasks.wire.sasl import AccessToken, bearers

TOKEN = AccessToken("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==")


def test_oauthbearer_is_the_example_of_rfc_7628() -> None:
    [way] = bearers({"PLAIN", "OAUTHBEARER"}, "user@example.com", TOKEN, "server.example.com", 143)

    assert way.first == (
        b"n,a=user@example.com,\1host=server.example.com\1port=143\1"
        b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\1\1"
    )
    assert way.failed == b"\1"


def test_a_login_is_escaped_as_gs2_wants() -> None:
    [way] = bearers({"OAUTHBEARER"}, "a=b,c", TOKEN, "h", 1)

    assert way.first.startswith(b"n,a=a=3Db=2Cc,\1")


def test_the_standard_comes_first_and_only_what_is_offered() -> None:
    both = bearers({"XOAUTH2", "OAUTHBEARER"}, "u", TOKEN, "h", 1)

    assert [way.mechanism for way in both] == ["OAUTHBEARER", "XOAUTH2"]
    assert both[1].first == b"user=u\1auth=Bearer " + TOKEN.text.encode() + b"\1\1"
    assert bearers({"PLAIN", "LOGIN"}, "u", TOKEN, "h", 1) == []


@pytest.mark.parametrize(
    ("login", "token"), [("u\1x", "t"), ("u\0", "t"), ("u", ""), ("u", "a\1b"), ("u", "ä")]
)
def test_what_would_break_out_of_the_message_is_refused(login: str, token: str) -> None:
    with pytest.raises(ValueError, match=r"no token|control"):
        bearers({"XOAUTH2"}, login, AccessToken(token), "h", 1)


def test_a_token_shows_in_no_repr() -> None:
    [way] = bearers({"XOAUTH2"}, "u", TOKEN, "h", 1)

    assert TOKEN.text not in repr(TOKEN) + repr(way)
