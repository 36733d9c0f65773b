"""Providers and domains in the database."""

import struct
import threading
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from config.errors import Conflict, MailwrightError, NotFound, PermissionDenied
from schema.database import Database
from tasks import access, providers
from tasks.access import Actor, Grantee, GranteeKind, Operation
from tasks.providers import InvalidProvider, ProviderDraft
from tasks.secrets import KeyRing, new_key_line, parse_key_ring

ADMIN = Actor("administrator")
AOL = ProviderDraft(name="AOL mail", imap_host="imap.aol.com", smtp_host="smtp.aol.com")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def _png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


PNG = _png()


def query(db: Database, sql: str, **given: Any) -> list[tuple[Any, ...]]:
    with db.begin() as session:
        return [tuple(row) for row in session.execute(text(sql), given)]


def add(db: Database, draft: ProviderDraft = AOL, *domains: str) -> None:
    with db.begin() as session:
        providers.add(ADMIN, session, draft, domains)


def mailbox(db: Database, provider: str, address: str) -> None:
    """A mailbox with both lanes, as the mailboxes' room makes it."""
    with db.begin() as session:
        row = providers.get(session, provider)
        made = session.execute(
            text(
                "INSERT INTO mailwright.mailboxes (address, address_key, provider_id, login)"
                " VALUES (:a, :a, :p, :a) RETURNING id"
            ),
            {"a": address, "p": row.id},
        ).scalar_one()
        for lane, host in (("schedule", row.imap_host), ("outbox_lanes", row.smtp_host)):
            session.execute(
                text(
                    f"INSERT INTO mailwright.{lane} (mailbox_id, provider_id, host, account)"
                    " VALUES (:m, :p, :h, :a)"
                ),
                {"m": made, "p": row.id, "h": host, "a": f"{address}@{host}"},
            )


def test_what_is_added_reads_back_with_its_defaults(db: Database) -> None:
    add(
        db,
        ProviderDraft(name="AOL mail", imap_host="imap.aol.com", smtp_host="smtp.aol.com", logo=PNG),
        "aol.com",
    )
    with db.begin() as session:
        row, domains, used = providers.show(ADMIN, session, "aol MAIL")
        card = providers.card_of(row)
        logo = providers.logo_of(ADMIN, session, "AOL mail")
    assert (card.imap_port, card.smtp_port, card.smtp_timeout, card.login_mode) == (993, 465, 40, "email")
    assert (domains, used) == (["aol.com"], 0)
    assert (logo.content, logo.type) == (PNG, "image/png")


def test_the_database_s_own_defaults_are_the_card_s(db: Database) -> None:
    with db.begin() as session:
        session.execute(
            text(
                "INSERT INTO mailwright.providers (name, receive, imap_host, imap_port)"
                " VALUES ('a', true, 'h', 993)"
            )
        )
        stored = providers.card_of(providers.get(session, "a"))
    assert stored == providers.ProviderCard(name="a", receive=True, imap_host="h", imap_port=993)


BROKEN = {
    "name": "''",
    "kind": "'POP3'",
    "receive": "false",
    "imap_host": "NULL",
    "imap_port": "65536",
    "imap_security": "'ssl'",
    "imap_authentication": "'none'",
    "smtp_port": "0",
    "smtp_host": "'SMTP.aol.com'",
    "smtp_timeout": "601",
    "login_mode": "'x'",
    "logo": "'abc'",
    "connections_per_account": "0",
    "connections_per_host": "0",
    "messages_per_minute": "0",
    "max_message_size": "0",
    "max_recipients": "0",
    "sent_copy": "'x'",
    "oauth_token_url": "'ftp://a'",
    "ca": "'secret'",
}


def test_the_database_keeps_each_rule_too(db: Database) -> None:
    add(db, ProviderDraft(name="a", imap_host="i.example"))
    with db.begin() as session:
        for column, value in BROKEN.items():
            with pytest.raises(IntegrityError), session.begin_nested():
                session.execute(text(f"UPDATE mailwright.providers SET {column} = {value}"))


def test_the_database_takes_only_stored_forms_of_domains(db: Database) -> None:
    add(db)
    insert = text(
        "INSERT INTO mailwright.provider_domains (domain, provider_id)"
        " SELECT :d, id FROM mailwright.providers"
    )
    with db.begin() as session:
        for domain in ("AOL.com", "", "a b", "a..b", "-a.b", "münchen.example", "x" * 64, "x." * 127):
            with pytest.raises(IntegrityError), session.begin_nested():
                session.execute(insert, {"d": domain})


def test_a_refused_provider_leaves_nothing(db: Database) -> None:
    add(db, AOL, "aol.com")
    tables = ("providers", "provider_domains", "audit", "events_pending")
    counts = "SELECT " + ", ".join(f"(SELECT count(*) FROM mailwright.{name})" for name in tables)
    before = query(db, counts)
    other = ProviderDraft(name="Other", imap_host="i.example")
    for draft, domains in (
        (other, ("new.example", "AOL.com")),
        (other, ("new.example", "not a domain")),
        (ProviderDraft(name="aol MAIL", imap_host="i.example"), ()),
        (ProviderDraft(name="Other", imap_host="i.example", logo=b"\x89PNG\r\n\x1a\nfake"), ()),
        (ProviderDraft(name="Other", imap_host="i.example", imap_port=0), ()),
    ):
        with pytest.raises(MailwrightError), db.begin() as session:
            providers.add(ADMIN, session, draft, domains)
    assert query(db, counts) == before


def test_a_domain_of_another_provider_is_refused_naming_it(db: Database) -> None:
    add(db, AOL, "aol.com")
    add(db, ProviderDraft(name="Other", imap_host="i.example"))
    with pytest.raises(Conflict, match=r'aol\.com belongs to provider "AOL mail"'), db.begin() as session:
        providers.add_domain(ADMIN, session, "AOL.COM", "Other")
    with db.begin() as session:
        assert providers.add_domain(ADMIN, session, "aol.com", "aol mail")[2] is False


def test_an_idn_domain_is_found_by_either_form(db: Database) -> None:
    add(db, AOL, "MÜNCHEN.example")
    with db.begin() as session:
        for address in ("anna@münchen.example", "anna@xn--mnchen-3ya.EXAMPLE", "anna@München.example."):
            assert providers.provider_for_address(session, address).name == "AOL mail"
        assert providers.remove_domain(ADMIN, session, "münchen.EXAMPLE") == (
            "xn--mnchen-3ya.example",
            "AOL mail",
        )


def test_no_match_lists_the_ways_on(db: Database) -> None:
    with db.begin() as session:
        with pytest.raises(NotFound) as plain:
            providers.provider_for_address(session, "anna@firma.example")
        with pytest.raises(NotFound) as known:
            providers.provider_for_address(session, "anna@gmail.com")
    assert str(plain.value) == (
        'no provider handles "anna@firma.example".\n'
        "Add its domain (mailwright domain add firma.example --provider NAME) or name one: --provider NAME."
    )
    assert "mailwright provider catalogue install Gmail" in str(known.value)


def race(db: Database, *acts: Callable[[Session], object]) -> list[type[MailwrightError]]:
    """Run each in a transaction of its own, all open before the first acts; what was refused."""
    gate = threading.Barrier(len(acts))
    refusals: list[type[MailwrightError]] = []

    def run(act: Callable[[Session], object]) -> None:
        try:
            with db.begin() as session:
                session.execute(text("SELECT 1"))
                gate.wait(10)
                act(session)
        except MailwrightError as refusal:
            refusals.append(type(refusal))

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return refusals


def test_two_who_add_the_same_at_once_get_one_clear_refusal(db: Database) -> None:
    add(db, ProviderDraft(name="First", imap_host="i.example"))
    add(db, ProviderDraft(name="Second", imap_host="i.example"))
    names: Callable[[Session], object] = lambda s: providers.add(ADMIN, s, AOL)  # noqa: E731
    assert race(db, names, names) == [Conflict]
    assert race(
        db,
        lambda s: providers.add_domain(ADMIN, s, "raced.example", "First"),
        lambda s: providers.add_domain(ADMIN, s, "raced.example", "Second"),
    ) == [Conflict]


def test_a_provider_in_use_is_not_removed_and_says_what_to_do(db: Database) -> None:
    add(db, AOL, "aol.com")
    mailbox(db, "AOL mail", "anna@aol.com")
    with (
        pytest.raises(Conflict, match=r"1 mailbox uses it.*provider disable 'AOL mail'"),
        db.begin() as session,
    ):
        providers.remove(ADMIN, session, "AOL mail")
    with db.begin() as session:
        assert providers.disable(ADMIN, session, "AOL mail").disabled
    assert query(db, "SELECT enabled FROM mailwright.schedule") == [(False,)]
    with db.begin() as session:
        assert not providers.enable(ADMIN, session, "AOL mail").disabled
    assert query(db, "SELECT enabled FROM mailwright.schedule") == [(True,)]
    assert query(db, "SELECT domain FROM mailwright.provider_domains") == [("aol.com",)]


def test_removal_takes_the_domains_along(db: Database) -> None:
    add(db, AOL, "aol.com", "aim.com")
    with db.begin() as session:
        providers.remove(ADMIN, session, "AOL mail")
    assert query(db, "SELECT 1 FROM mailwright.provider_domains") == []
    changes = query(db, "SELECT changes FROM mailwright.audit WHERE action = 'provider.removed'")[0][0]
    assert changes["domains"] == [["aim.com", "aol.com"], None]


def test_a_new_host_makes_mailboxes_wait_and_moves_their_lanes(db: Database) -> None:
    add(db)
    add(db, ProviderDraft(name="Other", imap_host="i.example", smtp_host="s.example"))
    mailbox(db, "AOL mail", "anna@aol.com")
    mailbox(db, "Other", "olga@other.example")
    with db.begin() as session:
        _, waiting = providers.edit(ADMIN, session, "AOL mail", ProviderDraft(imap_host="new.aol.com"))
    assert waiting == ["anna@aol.com"]
    assert query(
        db,
        "SELECT m.address, m.awaiting_confirmation, s.host, s.enabled, l.host, l.enabled"
        " FROM mailwright.mailboxes m"
        " JOIN mailwright.schedule s ON s.mailbox_id = m.id"
        " JOIN mailwright.outbox_lanes l ON l.mailbox_id = m.id"
        " ORDER BY 1",
    ) == [
        ("anna@aol.com", True, "new.aol.com", False, "smtp.aol.com", False),
        ("olga@other.example", False, "i.example", True, "s.example", True),
    ]
    assert query(
        db, "SELECT actor, name FROM mailwright.audit WHERE action = 'mailbox.awaiting_confirmation'"
    ) == [("administrator", "anna@aol.com")]


def test_an_edit_that_sends_no_password_elsewhere_asks_nothing(db: Database) -> None:
    add(db)
    mailbox(db, "AOL mail", "anna@aol.com")
    draft = ProviderDraft(imap_security="starttls", imap_port=1143, smtp_timeout=9, name="AOL")
    with db.begin() as session:
        row, waiting = providers.edit(ADMIN, session, "AOL mail", draft)
    assert (row.name, row.imap_port, row.imap_security, row.smtp_timeout) == ("AOL", 1143, "starttls", 9)
    assert waiting == []


def test_an_edit_tells_what_changed_in_the_trail_and_as_event(db: Database) -> None:
    add(db)
    with db.begin() as session:
        providers.edit(ADMIN, session, "AOL mail", ProviderDraft(smtp_timeout=41, logo=SVG))
        providers.edit(ADMIN, session, "AOL mail", ProviderDraft(smtp_timeout=41))
    assert query(db, "SELECT changes FROM mailwright.audit WHERE action = 'provider.edited'") == [
        ({"smtp_timeout": [40, 41], "logo": [None, f"image/svg+xml, {len(SVG)} bytes"]},)
    ]
    events = query(db, "SELECT type, subject, data FROM mailwright.events_pending ORDER BY id")
    uid = str(query(db, "SELECT uid FROM mailwright.providers")[0][0])
    assert [(kind, subject, data["action"]) for kind, subject, data in events] == [
        ("provider.changed", uid, "added"),
        ("provider.changed", uid, "edited"),
    ]
    assert events[1][2] == {"name": "AOL mail", "action": "edited", "changed": ["smtp_timeout", "logo"]}


def test_a_client_secret_is_sealed_masked_and_resealed(db: Database) -> None:
    old, new = new_key_line(), new_key_line()
    ring = parse_key_ring(old, "test")
    grown = parse_key_ring(f"{old}\n{new}", "test")
    with db.begin() as session:
        draft = ProviderDraft(name="Mine", imap_host="i.example", oauth_client_secret="hunter2")
        row = providers.add(ADMIN, session, draft, keyring=ring)
        assert row.oauth_client_secret is not None
        assert providers.open_client_secret(ring, row.uid, row.oauth_client_secret) == "hunter2"
    for place in ("providers", "audit", "events_pending"):
        assert "hunter2" not in str(query(db, f"SELECT t::text FROM mailwright.{place} t"))
    with db.begin() as session:
        assert providers.reseal_client_secrets(session, grown) == 1
        assert providers.reseal_client_secrets(session, grown) == 0
    packed = query(db, "SELECT oauth_client_secret FROM mailwright.providers")[0][0]
    only_new: KeyRing = parse_key_ring(new, "test")
    assert providers.open_client_secret(only_new, row.uid, packed) == "hunter2"


def test_the_catalogue_installs_once_and_skips_what_is_taken(db: Database) -> None:
    add(db, ProviderDraft(name="Mine", imap_host="i.example"), "gmx.de")
    with db.begin() as session:
        first = providers.install(ADMIN, session, list(providers.entries()))
    with db.begin() as session:
        again = providers.install(ADMIN, session, list(providers.entries()))
    assert all(result.added for result in first)
    assert not any(result.added for result in again)
    (skipped,) = [why for result in first for why in result.skipped]
    assert 'gmx.de belongs to provider "Mine"' in skipped
    assert query(db, "SELECT count(*) FROM mailwright.providers") == [(len(providers.entries()) + 1,)]


def test_who_manages_mailboxes_may_read_providers_but_not_change_them(db: Database) -> None:
    add(db, AOL, "aol.com")
    with db.begin() as session:
        access.add_user(ADMIN, session, "bob")
        access.add_user(ADMIN, session, "eve")
        access.grant(ADMIN, session, Operation.MANAGE_MAILBOXES, Grantee(GranteeKind.USER, "bob"))
    bob, eve = Actor("bob"), Actor("eve")
    reads: list[Callable[[Actor, Session], object]] = [
        providers.list_providers,
        providers.list_domains,
        lambda actor, session: providers.show(actor, session, "AOL mail"),
    ]
    changes: list[Callable[[Actor, Session], object]] = [
        lambda actor, session: providers.add(actor, session, ProviderDraft(name="x", imap_host="i.example")),
        lambda actor, session: providers.edit(actor, session, "AOL mail", ProviderDraft(smtp_timeout=1)),
        lambda actor, session: providers.disable(actor, session, "AOL mail"),
        lambda actor, session: providers.enable(actor, session, "AOL mail"),
        lambda actor, session: providers.remove(actor, session, "AOL mail"),
        lambda actor, session: providers.add_domain(actor, session, "x.example", "AOL mail"),
        lambda actor, session: providers.remove_domain(actor, session, "aol.com"),
        lambda actor, session: providers.install(actor, session, list(providers.entries())),
    ]
    with db.begin() as session:
        for read in reads:
            read(bob, session)
            with pytest.raises(PermissionDenied):
                read(eve, session)
        for change in changes:
            with pytest.raises(PermissionDenied, match="CanManageAdministration"):
                change(bob, session)


def test_what_is_not_there_is_named(db: Database) -> None:
    with db.begin() as session:
        for name in ("Nothing", "a\x00b", "\ud800", ""):
            with pytest.raises(NotFound, match="there is no provider"):
                providers.show(ADMIN, session, name)
        with pytest.raises(NotFound, match="belongs to no provider"):
            providers.remove_domain(ADMIN, session, "nowhere.example")
    add(db)
    with db.begin() as session, pytest.raises(NotFound, match="no logo"):
        providers.logo_of(ADMIN, session, "AOL mail")


def test_a_name_taken_by_an_edit_is_refused(db: Database) -> None:
    add(db)
    add(db, ProviderDraft(name="Other", imap_host="i.example"))
    with pytest.raises(Conflict, match="already a provider"), db.begin() as session:
        providers.edit(ADMIN, session, "Other", ProviderDraft(name="AOL MAIL"))
    with pytest.raises(InvalidProvider, match="name"), db.begin() as session:
        providers.edit(ADMIN, session, "Other", ProviderDraft(name=""))
