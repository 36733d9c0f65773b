"""The catalogue is right by its own rules."""

import pytest

from config.errors import NotFound
from schema.tables.providers import Authentication, SentCopy
from tasks.providers import entries, entry, normalise_domain
from tasks.providers.rules import complete


def test_every_entry_makes_a_whole_card_over_encrypted_connections() -> None:
    for known in entries():
        card = complete(known.draft)
        assert card.name == known.name
        assert card.receive
        assert card.send
        assert {card.imap_port, card.smtp_port} <= {993, 465, 587}


def test_the_promised_services_are_there() -> None:
    promised = {"Gmail", "Outlook", "Yahoo", "AOL", "iCloud", "Fastmail", "GMX", "Zoho", "Yandex", "Mail.ru"}
    assert promised <= {known.name for known in entries()}


def test_no_domain_is_listed_twice_and_each_is_in_its_stored_form() -> None:
    domains = [domain for known in entries() for domain in known.domains]
    assert len(domains) == len(set(domains))
    assert [normalise_domain(domain) for domain in domains] == domains


def test_services_that_file_sent_mail_themselves_are_marked() -> None:
    for name in ("Gmail", "Outlook", "Microsoft 365", "Zoho"):
        assert complete(entry(name).draft).sent_copy is SentCopy.SERVER


def test_outlook_says_that_it_wants_oauth() -> None:
    assert complete(entry("outlook").draft).imap_authentication is Authentication.OAUTH2


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(NotFound, match="Fastmail"):
        entry("Hooli")
