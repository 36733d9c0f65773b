"""Every default and rule of the provider's card."""

from typing import Any

import pytest
import trustme

from schema.tables.providers import Authentication, LoginMode, Security, SentCopy
from tasks.providers import InvalidProvider, ProviderCard, ProviderDraft
from tasks.providers.rules import complete, needs_confirmation


def card(**given: Any) -> ProviderCard:
    return complete(ProviderDraft(**({"name": "AOL mail", "imap_host": "imap.aol.com"} | given)))


def faults(before: ProviderCard | None = None, **given: Any) -> list[str]:
    with pytest.raises(InvalidProvider) as refusal:
        complete(ProviderDraft(**given), before)
    assert all(fault.message in str(refusal.value) for fault in refusal.value.faults)
    return [fault.field for fault in refusal.value.faults]


def test_what_is_left_out_has_the_card_s_default() -> None:
    assert card(smtp_host="smtp.aol.com") == ProviderCard(
        name="AOL mail",
        receive=True, imap_host="imap.aol.com", imap_port=993, imap_security=Security.TLS,
        imap_authentication=Authentication.PASSWORD,
        send=True, smtp_host="smtp.aol.com", smtp_port=465, smtp_security=Security.TLS,
        smtp_authentication=Authentication.PASSWORD, smtp_timeout=40,
        login_mode=LoginMode.EMAIL,
        connections_per_account=3, connections_per_host=50, messages_per_minute=None, max_message_size=None,
        max_recipients=100,
        sent_copy=SentCopy.APPEND, trust_condstore=True, resend_if_absent=False,
        ca=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("security", "imap", "smtp"), [("tls", 993, 465), ("starttls", 143, 587), ("none", 143, 25)]
)
def test_a_port_left_out_follows_its_security(security: str, imap: int, smtp: int) -> None:
    made = card(smtp_host="s.example", imap_security=security, smtp_security=security)
    assert (made.imap_port, made.smtp_port) == (imap, smtp)


def test_a_usual_port_follows_a_changed_security_and_a_chosen_one_stays() -> None:
    usual, chosen = card(), card(imap_port=10993)
    changed = ProviderDraft(imap_security="starttls")
    assert complete(changed, usual).imap_port == 143
    assert complete(changed, chosen).imap_port == 10993


def test_a_host_implies_its_switch_unless_it_is_said_to_be_off() -> None:
    assert (card().receive, card().send) == (True, False)
    off = card(smtp_host="smtp.aol.com", receive=False)
    assert (off.receive, off.imap_host, off.send) == (False, "imap.aol.com", True)


def test_an_edit_leaves_what_it_does_not_name() -> None:
    before = card(smtp_host="smtp.aol.com", smtp_timeout=7, trust_condstore=False, messages_per_minute=9)
    after = complete(ProviderDraft(max_recipients=5), before)
    assert after.max_recipients == 5
    assert after.smtp_timeout == 7
    assert after.messages_per_minute == 9
    assert not after.trust_condstore
    assert complete(ProviderDraft(messages_per_minute=None), after).messages_per_minute is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(f"{name}_port", port) for name in ("imap", "smtp") for port in (0, -1, 65536, 10**30, True)],
        *[("smtp_timeout", seconds) for seconds in (0, 601, -5)],
        ("name", ""), ("name", "x" * 251), ("name", "a\x07b"),
        ("imap_host", "a b"), ("smtp_host", "imap.aol.com:465"),
        ("imap_security", "ssl"), ("smtp_security", ""), ("imap_authentication", "kerberos"),
        ("login_mode", "guess"), ("sent_copy", "maybe"),
        ("connections_per_account", 0), ("connections_per_account", 101), ("connections_per_host", 0),
        ("messages_per_minute", 0), ("max_message_size", 0), ("max_message_size", 2**41),
        ("max_recipients", 0), ("max_recipients", 10_001),
        ("oauth_token_url", "http://evil.example/token"), ("oauth_token_url", "https://a b"),
        ("oauth_client_id", "a\nb"), ("oauth_scopes", "x" * 2001),
        ("ca", "not PEM"), ("ca", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ],
)  # fmt: skip
def test_a_broken_rule_names_its_field(field: str, value: object) -> None:
    given = {"name": "AOL mail", "imap_host": "imap.aol.com", "smtp_host": "smtp.aol.com"} | {field: value}
    assert faults(**given) == [field]


def test_all_faults_are_told_at_once() -> None:
    assert set(faults(name="", imap_port=0, smtp_timeout=0)) == {
        "name",
        "imap_port",
        "smtp_timeout",
        "receive",
    }


def test_a_provider_must_do_something() -> None:
    assert faults(name="AOL mail") == ["receive"]
    assert faults(name="AOL mail", receive=True) == ["imap_host"]
    assert faults(name="AOL mail", imap_host="i.example", send=True) == ["smtp_host"]
    assert faults(card(), receive=False) == ["receive"]
    assert faults(card(), imap_host=None, receive=True) == ["imap_host"]


def test_a_ca_is_kept_as_certificates_and_nothing_else() -> None:
    authority = trustme.CA()
    pem = authority.cert_pem.bytes().decode()
    assert card(ca=f"a comment\n{pem}").ca == pem
    key = authority.private_key_pem.bytes().decode()
    assert faults(name="x", imap_host="i.example", ca=pem + key) == ["ca"]


def test_a_new_host_or_weaker_security_needs_a_confirmation() -> None:
    before = card(smtp_host="smtp.aol.com", smtp_security="starttls")

    def asks(**changes: Any) -> bool:
        return needs_confirmation(before, complete(ProviderDraft(**changes), before))

    assert asks(imap_host="elsewhere.example")
    assert asks(smtp_host="elsewhere.example")
    assert asks(imap_security="none")
    assert not asks(imap_security="starttls")
    assert not asks(smtp_security="tls")
    assert not asks(imap_port=10993, smtp_timeout=9)
    assert not asks(imap_host="IMAP.aol.com.")
    assert not asks(receive=False)


def test_a_protocol_switched_on_at_the_same_host_needs_none_and_elsewhere_does() -> None:
    before = card()
    same = complete(ProviderDraft(smtp_host="imap.aol.com"), before)
    other = complete(ProviderDraft(smtp_host="smtp.aol.com"), before)
    assert not needs_confirmation(before, same)
    assert needs_confirmation(before, other)


def test_a_secret_shows_in_no_repr() -> None:
    assert "hunter2" not in repr(ProviderDraft(oauth_client_secret="hunter2"))
