"""Where a sealed password may go."""

import pytest

from config.errors import UserError
from schema.ids import uuid7
from schema.tables.mailboxes import MailboxSecret
from schema.tables.providers import Provider
from tasks.mailboxes import seals
from tasks.secrets import new_key_line, parse_key_ring

SEALED = "imap=tls@imap.a.example smtp=starttls@smtp.a.example"


@pytest.mark.parametrize(
    "wanted",
    [
        SEALED,
        "imap=tls@imap.a.example",
        "smtp=tls@smtp.a.example",  # STARTTLS is never skipped, so it protects as TLS does
        "imap=starttls@imap.a.example smtp=tls@smtp.a.example",
        "",
    ],
)
def test_the_same_hosts_no_less_protected_are_covered(wanted: str) -> None:
    assert seals.covers(SEALED, wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        "imap=tls@imap.b.example",
        "imap=none@imap.a.example",
        "smtp=none@smtp.a.example",
        "imap=tls@imap.a.example smtp=tls@smtp.b.example",
        "smtp=tls@imap.a.example",  # known for IMAP only, and SMTP is known elsewhere
    ],
)
def test_another_host_or_weaker_security_is_not_covered(wanted: str) -> None:
    assert not seals.covers(SEALED, wanted)


def test_a_protocol_that_comes_later_at_the_known_host_is_covered() -> None:
    assert seals.covers("imap=tls@mail.a.example", "imap=tls@mail.a.example smtp=tls@mail.a.example")
    assert not seals.covers("imap=tls@mail.a.example", "smtp=none@mail.a.example")


def test_the_route_names_what_the_provider_offers() -> None:
    provider = Provider(
        receive=True,
        imap_host="IMAP.a.example",
        imap_security="tls",
        send=False,
        smtp_host="smtp.a.example",
        smtp_security="tls",
    )

    assert seals.route_of(provider) == "imap=tls@imap.a.example"


def test_a_row_whose_route_was_changed_behind_our_back_does_not_open() -> None:
    ring, uid = parse_key_ring(new_key_line(), "test"), uuid7()
    sealed = seals.seal(ring, uid, "hunter2", SEALED)
    row = MailboxSecret(
        mailbox_id=1, key_id=sealed.key_id, nonce=sealed.nonce, sealed=sealed.sealed, route=SEALED
    )
    assert seals.unseal(ring, uid, row) == "hunter2"

    row.route = "imap=tls@imap.evil.example"

    with pytest.raises(UserError):
        seals.unseal(ring, uid, row)


def test_a_secret_copied_to_another_mailbox_does_not_open() -> None:
    ring = parse_key_ring(new_key_line(), "test")
    sealed = seals.seal(ring, uuid7(), "hunter2", SEALED)
    row = MailboxSecret(
        mailbox_id=2, key_id=sealed.key_id, nonce=sealed.nonce, sealed=sealed.sealed, route=SEALED
    )

    with pytest.raises(UserError):
        seals.unseal(ring, uuid7(), row)
