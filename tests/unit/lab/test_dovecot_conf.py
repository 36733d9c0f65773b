"""Dovecot's configuration in the language of each version."""

from dataclasses import replace
from pathlib import Path

import pytest

from lab.ports import LabError
from lab.servers.certificates import Certificate
from lab.servers.dovecot_conf import Plan, render
from lab.servers.tree import Account

PLAN = Plan(
    tree=Path("/t"),
    host="127.0.0.1",
    imap_port=1143,
    imaps_port=1993,
    lmtp=True,
    certificate=Certificate(Path("/t/ca"), Path("/t/chain"), Path("/t/key")),
    account=Account("nobody", "nogroup", 65534, 65534),
    root=True,
    imap_client_limit=40,
    connections_per_user=1000,
    extra="mail_debug = yes",
)


def test_2_3_and_2_4_speak_their_own_language() -> None:
    old, new = render("2.3.19.1", PLAN), render("2.4.1-4", PLAN)

    assert "ssl_cert = </t/chain" in old
    assert "mail_location = maildir:/t/mail/%u" in old
    assert "dovecot_config_version" not in old
    assert new.startswith("dovecot_config_version = 2.4.1\n")
    assert "ssl_server_cert_file = /t/chain" in new
    assert "mail_driver = maildir" in new
    assert "disable_plaintext_auth" not in new
    assert "%u" not in new


@pytest.mark.parametrize("version", ["2.2.36", "2.5.0", "3.0.0", "mystery"])
def test_other_versions_are_refused_by_name(version: str) -> None:
    with pytest.raises(LabError, match=f"Dovecot {version} is not known here"):
        render(version, PLAN)


@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
def test_without_root_there_is_no_other_user_and_no_chroot(version: str) -> None:
    text = render(version, replace(PLAN, root=False))

    assert "default_login_user = nobody" in text
    assert "chroot =\n" in text
    assert "default_login_user" not in render(version, PLAN)


@pytest.mark.parametrize("version", ["2.3.19", "2.4.1"])
def test_braces_match_and_the_last_word_is_the_caller_s(version: str) -> None:
    text = render(version, PLAN)

    assert text.count("{\n") == text.replace("%{user}", "").count("}\n")
    assert text.endswith("mail_debug = yes\n")
