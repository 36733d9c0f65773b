"""Domains, hosts and addresses come to one form, or are refused with what is wrong."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import UserError
from tasks.providers import normalise_domain, normalise_host, split_address


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("aol.com", "aol.com"),
        ("AOL.Com.", "aol.com"),
        (" gmail.com ", "gmail.com"),
        ("MÜNCHEN.example", "xn--mnchen-3ya.example"),
        ("XN--MNCHEN-3YA.example", "xn--mnchen-3ya.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("r3---sn-x.example", "r3---sn-x.example"),
        ("localhost", "localhost"),
    ],
)
def test_a_domain_is_stored_as_lower_case_a_labels(given: str, stored: str) -> None:
    assert normalise_domain(given) == stored
    assert normalise_domain(stored) == stored


@pytest.mark.parametrize(
    "domain",
    [
        "", ".", "a..b", "-a.example", "a-.example", "a b.example", "a_b.example", "user@aol.com",
        "1.2.3.4", "x" * 64 + ".example", ".".join(["x" * 60] * 5), "xn--zzzzzzz\u00fc.example",
        "xn--.example",
        "a\x00b.example", "\ud800.example", "http://aol.com", "x" * 100_000, "ä" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_domain_is_refused(domain: str) -> None:
    with pytest.raises(UserError, match="is not a domain"):
        normalise_domain(domain)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("IMAP.aol.com", "imap.aol.com"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("[::1]", "::1"),
        ("post.münchen.example", "post.xn--mnchen-3ya.example"),
    ],
)
def test_a_host_is_a_name_or_a_literal(given: str, stored: str) -> None:
    assert normalise_host(given) == stored


@pytest.mark.parametrize(
    "host", ["", "imap.aol.com:993", "fe80::1%eth0", "1.2.3", "0x7f.1", "256.1.1.1", "imaps://aol.com", "a b"]
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(UserError, match="is not a host"):
        normalise_host(host)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("anna@AOL.com", "anna@aol.com"),
        ("Anna.B+c@aol.com", "Anna.B+c@aol.com"),
        ('"a b@c"@aol.com', '"a b@c"@aol.com'),
        ("müller@münchen.example", "müller@xn--mnchen-3ya.example"),
        ("mu\u0308ller@aol.com", "müller@aol.com"),
    ],
)
def test_an_address_is_taken_apart(address: str, key: str) -> None:
    assert split_address(address).key == key


@pytest.mark.parametrize(
    "address",
    [
        "", "anna", "@aol.com", "anna@", "an na@aol.com", ".anna@aol.com", "an..na@aol.com", "a,b@aol.com",
        "anna@aol.com\r\nBcc: x@y.example", "a\u202eb@aol.com", "x" * 65 + "@aol.com", "anna@[192.0.2.1]",
        "a@b@aol.com", '"a"b"@aol.com', "anna@" + ".".join(["x" * 60] * 4) + ".example", "\ud800@aol.com",
        "a\u00a0b@aol.com", "<anna@aol.com>",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="is not an e-mail address"):
        split_address(address)


@given(st.text())
def test_any_text_is_an_answer_never_a_crash(text: str) -> None:
    for normalise in (normalise_domain, normalise_host):
        with contextlib.suppress(UserError):
            assert normalise(normalise(text)) == normalise(text)
    with contextlib.suppress(UserError):
        assert split_address(text).key.count("@") >= 1
