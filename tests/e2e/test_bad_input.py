"""Whatever a person gives ``mailwright``: one clear sentence, no half-made row, no secret told.

Each case runs the installed program as a process of its own and counts the rows of every table before
and after.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from lab.ports import free_port
from lab.servers.certificates import Certificate, issue
from lab.servers.imap_faults import FaultyImap
from lab.servers.smtp_faults import FaultySmtp
from lab.world import Ports, add_mailbox, add_provider
from schema.database import Database
from tasks.runtime import Runtime
from tasks.secrets import new_key_line

PROGRAM = Path(sys.executable).parent / "mailwright"
PASSWORD = f"hush-{secrets.token_hex(8)}"
ANNA = "anna@test.example"
MISSING = "00000000-0000-7000-8000-000000000000"
TABLES = text("""
    SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'mailwright' AND c.relkind = 'r'
""")

Word = str | bytes


@dataclass(frozen=True, slots=True)
class Told:
    """What a command answered."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Program:
    """Runs ``mailwright`` from a directory of its own; whatever it says is searched for secrets."""

    environment: dict[str, str]
    directory: Path
    db: Database
    secrets: list[str] = field(repr=False)

    def run(self, *words: Word, given: bytes = b"", **more: str) -> Told:
        done = subprocess.run(
            [PROGRAM, *words],
            input=given,
            capture_output=True,
            env=self.environment | more,
            cwd=self.directory,
            timeout=90,
            check=False,
        )
        told = Told(done.returncode, done.stdout.decode(), done.stderr.decode())
        everything = told.out + told.err
        assert "Traceback" not in everything
        assert "fault of mailwright" not in everything
        for secret in (*self.secrets, PASSWORD):
            assert secret not in everything
        return told

    def refused(self, *words: Word, given: bytes = b"", code: int = 1, **more: str) -> str:
        """The sentence of a command that must fail, leaving the database as it was."""
        before = self.rows()
        told = self.run(*words, given=given, **more)
        assert told.code == code, (words, told)
        assert told.err.startswith("mailwright: "), (words, told)
        assert 1 <= len(told.err.splitlines()) <= 2, (words, told)
        assert all(character.isprintable() or character == "\n" for character in told.err), told.err
        assert max(map(len, told.err.splitlines())) < 1100
        assert self.rows() == before, words
        return told.err

    def misused(self, *words: Word, **more: str) -> str:
        """The sentence that a wrong usage gets."""
        said = self.refused(*words, code=2, **more)
        assert "--help" in said
        return said

    def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        with self.db.begin() as session:
            names = session.scalars(TABLES).all()
            each = [f"SELECT '{name}', count(*) FROM mailwright.{name}" for name in names]
            counts = {name: int(count) for name, count in session.execute(text(" UNION ALL ".join(each)))}
        assert len(counts) > 20
        return counts


@pytest.fixture
def program(database_url: str, valkey_url: str, db: Database, tmp_path: Path) -> Program:
    """The command line over a fresh database."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAILWRIGHT_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    ring = new_key_line()
    environment |= {
        "MAILWRIGHT_DATABASE_URL": database_url,
        "MAILWRIGHT_BROKER_URL": valkey_url,
        "MAILWRIGHT_KEY_RING": ring,
        "MAILWRIGHT_HOME": str(tmp_path / "home"),
        "MAILWRIGHT_IMAP_TIMEOUT_SECONDS": "10",
    }
    directory = tmp_path / "work"
    directory.mkdir()
    return Program(environment, directory, db, [ring.partition(":")[2]])


@pytest.fixture
def anna(program: Program, runtime: Runtime) -> str:
    """A mailbox that sends and receives; nobody listens where its provider points."""
    provider = add_provider(runtime, Ports(imap=1, smtp=1))
    add_mailbox(runtime, provider, ANNA, PASSWORD)
    return ANNA


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """A certificate of an authority that nobody trusts unless told to."""
    return issue(tmp_path / "tls")


@pytest.fixture
def plain_imap() -> Iterator[FaultyImap]:
    """An IMAP server without TLS."""
    with FaultyImap(password=f"other-{secrets.token_hex(4)}") as server:
        yield server


def letter(*more: Word, to: Word = "ben@b.example") -> Sequence[Word]:
    return ("send", "--from", ANNA, "--to", to, "--text", "hello", *more)


def adding(*more: Word, address: Word = "zoe@test.example") -> Sequence[Word]:
    return ("mailbox", "add", address, "--password-stdin", *more)


# ---- mailboxes and the servers behind them


def test_an_unknown_domain_lists_the_ways_on(program: Program, anna: str) -> None:
    said = program.refused(*adding(address="anna@firma.example"), given=PASSWORD.encode())

    assert 'no provider handles "anna@firma.example"' in said
    assert "mailwright domain add firma.example" in said
    assert "--provider NAME" in said


@pytest.mark.parametrize("as_json", [False, True])
def test_each_failing_connection_is_one_sentence_and_no_row(
    program: Program, runtime: Runtime, plain_imap: FaultyImap, certificate: Certificate, as_json: bool
) -> None:
    front = ("--json",) if as_json else ()
    with (
        FaultyImap(certificate=certificate, tls=True) as strange,
        FaultySmtp(certificate=certificate, tls=True) as smtp,
    ):
        wishes = {
            "wrong": (Ports(imap=plain_imap.port), "failed at login", "app password"),
            "closed": (Ports(imap=free_port()), "failed at connect", "Check the port"),
            "tls": (Ports(imap=plain_imap.port, imap_security="tls"), "failed at tls", "TLS"),
            "starttls": (Ports(imap=plain_imap.port, imap_security="starttls"), "STARTTLS", "failed at"),
            "strange": (Ports(imap=strange.port, imap_security="tls"), "failed at tls", "ertificate"),
            "smtp": (Ports(smtp=smtp.port, smtp_security="tls"), "SMTP at", "ertificate"),
        }
        for name, (ports, *expected) in wishes.items():
            add_provider(runtime, ports, name)
            said = program.refused(
                *front, *adding(address=f"zoe@{name}.example"), given=PASSWORD.encode() + b"\n"
            )
            for words in expected:
                assert words in said, (name, said)
            assert "--store-anyway" in said
        assert strange.commands["LOGIN"] == strange.commands["AUTHENTICATE"] == 0
    assert PASSWORD.encode() not in b"".join(smtp.commands)


def test_a_test_of_a_stored_mailbox_that_fails_says_why(program: Program, anna: str) -> None:
    # Its password was sealed under another ring than the program's.
    assert "the key ring lacks key" in program.refused("mailbox", "test", anna)
    assert "there is no mailbox" in program.refused("mailbox", "test", "nobody@test.example")


def test_passwords_that_are_none(program: Program, anna: str) -> None:
    for given, words in (
        (b"", "empty"),
        (b"\n", "empty"),
        (b"x" * 2**20, "1024"),
        (b"hush" * 9 + b"\xff\xfe", "UTF-8"),
        (b"two\nlines", "one line"),
        (b"nul\0nul", "one line"),
    ):
        assert words in program.refused(*adding("--no-test"), given=given)


def test_addresses_that_are_none(program: Program, anna: str) -> None:
    for address in (
        "", "anna", "anna@", "@test.example", "a b@test.example", "anna@test..example",
        "a" * 65 + "@test.example",
        "anna\r\nX: y@test.example", "anna\x1b[2J@test.example", "Anna <anna@test.example>",
        "anna@test.example,ben@test.example", "x" * 50_000 + "@test.example", "anna@\u202etest.example",
    ):  # fmt: skip
        program.refused(*adding("--no-test", address=address), given=PASSWORD.encode())


def test_addresses_in_a_message_that_are_none(program: Program, anna: str) -> None:
    for option, address in (
        ("--to", "anna"), ("--to", "x@y.example\r\nBcc: z@y.example"), ("--to", "<>"), ("--cc", "anna@"),
        ("--bcc", "a b@c.example"), ("--reply-to", "a@b@c"), ("--as-address", "eve@evil.example"),
    ):  # fmt: skip
        program.refused(*letter(option, address))


# ---- sending


def test_no_header_is_injected_by_the_command_line(program: Program, anna: str) -> None:
    for end in ("\r\n", "\n", "\r"):
        assert "subject" in program.refused(*letter("--subject", f"Hello{end}Bcc: eve@evil.example")).lower()
    poison = "\r\nBcc: eve@evil.example"
    program.refused(*letter("--header", f"X-A: b{poison}"))
    program.refused(*letter("--in-reply-to", f"<a@b>{poison}"))
    program.refused(*letter(to=f"ben@b.example{poison}"))


def test_no_header_is_injected_by_sql(program: Program, anna: str, database_url: str) -> None:
    good = {"to": ["ben@b.example"], "subject": "s", "text": "t"}
    wishes: list[Mapping[str, Any]] = [
        {"subject": "Hello\r\nBcc: eve@evil.example"},
        {"subject": "Hello\nBcc: eve@evil.example"},
        {"to": ["ben@b.example\r\nBcc: eve@evil.example"]},
        {"to": [{"name": "Ben\r\nBcc: eve@evil.example", "address": "ben@b.example"}]},
        {"from": "anna@test.example\r\nBcc: eve@evil.example"},
        {"reply_to": ["x@y.example\nBcc: eve@evil.example"]},
        {"headers": [["X-A", "b\r\nBcc: eve@evil.example"]]},
        {"headers": [["X-A\r\nBcc", "eve@evil.example"]]},
    ]
    before = program.rows()
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as caller:
        for wish in wishes:
            with pytest.raises(psycopg.Error) as refusal:
                caller.execute("SELECT mailwright.enqueue(%s, %s)", (ANNA, json.dumps(good | wish)))
            assert refusal.value.sqlstate == "MW400"
            assert str(refusal.value).startswith("header_injection: ")
    assert program.rows() == before


def test_files_that_are_missing_or_odd(program: Program, anna: str) -> None:
    odd = program.directory / "odd.bin"
    odd.write_bytes(b"\xff\xfe\0\0")
    card = ("provider", "add", "X", "--imap-host", "imap.x.example")
    for name in ("nowhere", str(program.directory), "/proc/self/mem"):
        assert name in program.refused(*letter("--attach", name))
        assert name in program.refused(*letter("--html", name))
        assert name in program.refused(*card, "--logo", name)
        assert name in program.refused(*card, "--ca", name)
    assert "UTF-8" in program.refused(*letter("--html", str(odd)))
    assert "UTF-8" in program.refused("send", "--from", ANNA, "--to", "b@b.example", "--text-file", str(odd))
    program.refused(*card, "--ca", str(odd))
    program.refused(*card, "--logo", "/dev/zero")


def test_logos_that_are_none(program: Program) -> None:
    card = ("provider", "add", "X", "--imap-host", "imap.x.example", "--logo")
    contents = {
        "huge.png": (b"\x89PNG\r\n\x1a\n".ljust(10 * 2**20, b"\0"), "256 KiB"),
        "fake.png": (b"I am no picture", "PNG"),
        "half.png": (b"\x89PNG\r\n\x1a\n" + b"IHDR" * 9, "image/png"),
        "empty.png": (b"", "none of them"),
    }
    for name, (content, words) in contents.items():
        (program.directory / name).write_bytes(content)
        assert words in program.refused(*card, name), name


def test_things_that_do_not_exist(program: Program, anna: str) -> None:
    for noun, verb in (("outbox", "show"), ("outbox", "cancel"), ("outbox", "retry"), ("message", "show"),
                       ("message", "raw")):  # fmt: skip
        assert MISSING in program.refused(noun, verb, MISSING)
        assert "UUID" in program.misused(noun, verb, "no-uuid\n\n\nmore")
    for words in (
        ("provider", "show", "none\x1b[2J"), ("domain", "add", "a.example", "--provider", "none"),
        ("domain", "remove", "a.example"), ("user", "remove", "none"), ("role", "remove", "none"),
        ("grant", "remove", "999"), ("grant", "add", "CanFly", "--user", "none"),
        ("mailbox", "show", "none@test.example"), ("mailbox", "confirm", "--provider", "none"),
        ("message", "list", "none@test.example"), ("event", "list", "--mailbox", "none@test.example"),
        ("sync", "none@test.example"), ("provider", "catalogue", "install", "none"),
        ("send", "--from", "none@test.example", "--to", "b@b.example", "--text", "t"),
        ("outbox", "list", "--mailbox", "none@test.example"),
    ):  # fmt: skip
        program.refused(*words)


def test_an_unknown_user_is_told_what_is_missing(program: Program, anna: str) -> None:
    for words in (
        ("provider", "list"),
        ("mailbox", "list"),
        ("audit", "list"),
        letter(),
        adding("--no-test"),
    ):
        program.refused("--as", "nobody", *words, given=PASSWORD.encode())
    program.refused("--as", "", "provider", "list")
    program.refused("--as", "a\nb\nc\x1b[2J", "user", "add", "eve")


# ---- wrong usage


def test_wrong_usage_exits_with_2(program: Program) -> None:
    assert "nonsense" in program.misused("nonsense")
    program.misused("non\nsense\n\x1b[2J")
    program.misused("mailbox", "fly")
    program.misused("mailbox", "add")
    program.misused("provider", "add", "X", "--bogus\n\n\nx")
    program.misused("provider", "add", "X", "--imap-port", "many\n\n\n")
    program.misused("provider", "add", "X", "--imap-port", "9" * 5000)
    program.misused("send", "--from", ANNA, "--to", "b@b.example", "--priority", "high")
    program.misused("event", "list", "--after", "-1")
    program.misused("event", "list", "--limit", "0")
    assert "UTF-8" in program.misused("provider", "show", b"\xff\xfe")
    assert "UTF-8" in program.misused("send", "--from", ANNA, "--to", b"\x80@b.example")


def test_numbers_out_of_all_range(program: Program, anna: str) -> None:
    card = ("provider", "add", "X", "--imap-host", "imap.x.example", "--smtp-host", "smtp.x.example")
    huge = str(10**30)
    for option, value in (("--imap-port", "0"), ("--smtp-timeout", "601"), ("--smtp-timeout", huge),
                          ("--max-message-size", huge), ("--connections-per-host", "-1")):  # fmt: skip
        program.refused(*card, option, value)
    for option, value in (("--history-days", huge), ("--history-days", "-5"), ("--poll-seconds", "nan"),
                          ("--poll-seconds", "inf")):  # fmt: skip
        program.refused(*adding("--no-test", option, value), given=PASSWORD.encode())
    for option, value in (("--priority", huge), ("--not-before", "soon"), ("--expires-at", "2001-01-01"),
                          ("--expires-at", "99999-01-01T00:00:00Z")):  # fmt: skip
        program.refused(*letter(option, value))
    program.refused("grant", "remove", huge)
    program.run("event", "list", "--after", huge)
    program.run("audit", "list", "--limit", huge)


# ---- what stands around it


def test_a_key_ring_that_is_missing_or_malformed(program: Program, anna: str) -> None:
    program.environment.pop("MAILWRIGHT_KEY_RING")
    add = adding("--no-test")
    assert "mailwright secret init" in program.refused(*add, given=PASSWORD.encode())
    for ring in ("x", "k1:short", "k1:" + "A" * 43, ":" + "A" * 44, "a:b:c", ",,,"):
        said = program.refused(*add, given=PASSWORD.encode(), MAILWRIGHT_KEY_RING=ring)
        assert "key ring" in said
    odd = program.directory / "ring"
    for content in (b"", os.urandom(100) + b"\xff", b"k1:" + b"A" * 20):
        odd.write_bytes(content)
        said = program.refused(*add, given=PASSWORD.encode(), MAILWRIGHT_KEY_RING_FILE=str(odd))
        assert "key ring" in said
    said = program.refused(*add, given=PASSWORD.encode(), MAILWRIGHT_KEY_RING_FILE=str(program.directory))
    assert "key ring" in said
    program.refused("worker")
    program.refused("secret", "rotate")
    program.refused("secret", "init", MAILWRIGHT_KEY_RING_FILE="/proc/nowhere/ring")
    said = program.refused("secret", "init", MAILWRIGHT_KEY_RING=new_key_line())
    assert "MAILWRIGHT_KEY_RING" in said


def test_a_database_that_is_no_database(program: Program) -> None:
    program.secrets += ["hunter2", "ter2@"]
    for url in (
        "postgresql://x:hunter2@127.0.0.1:1/x", "postgresql://x:hunter2@no-such-host.invalid/x",
        "mysql://x:hunter2@127.0.0.1/x", "hunter2", "", "postgresql://x:hunter2@127.0.0.1:port/x",
        "postgresql://x:hunter2@127.0.0.1:1/x?bogus=1", "postgresql://x:hunter2@127.0.0.1:1/x?sslmode=bogus",
        "postgresql+psycopg://x:hun@ter2@127.0.0.1:1/x",
    ):  # fmt: skip
        assert "MAILWRIGHT_DATABASE_URL" in program.refused("provider", "list", MAILWRIGHT_DATABASE_URL=url)
    for words in (("worker",), ("relay",), ("db", "check"), ("db", "upgrade"), adding("--no-test")):
        said = program.refused(
            *words, given=PASSWORD.encode(), MAILWRIGHT_DATABASE_URL="postgresql://x:hunter2@127.0.0.1:1/x"
        )
        assert "MAILWRIGHT_DATABASE_URL" in said


def test_a_migration_that_was_not_applied(program: Program, postgres: Any) -> None:
    bare = postgres.url("postgres")
    for words in (
        ("provider", "list"), ("worker",), ("relay",), ("db", "check"), ("mailbox", "list"),
        ("outbox", "list"), ("event", "list"), ("status",),
        ("send", "--from", ANNA, "--to", "b@b.example", "--text", "t"), ("doctor",),
    ):  # fmt: skip
        if words[0] in ("status", "doctor"):
            told = program.run(*words, MAILWRIGHT_DATABASE_URL=bare)
            assert told.code == 1
            assert "mailwright db upgrade" in told.out
            continue
        assert "mailwright db upgrade" in program.refused(*words, MAILWRIGHT_DATABASE_URL=bare)


def test_a_broker_that_is_no_broker(program: Program, anna: str) -> None:
    program.secrets.append("hunter2")
    told = program.run("doctor", MAILWRIGHT_BROKER_URL="redis://:hunter2@127.0.0.1:1/0")
    assert told.code == 1
    assert "MAILWRIGHT_BROKER_URL" in told.out
    for url in ("", "hunter2", "foo://:hunter2@127.0.0.1", "redis://:hunter2@127.0.0.1:port/0"):
        assert "MAILWRIGHT_BROKER_URL" in program.refused("worker", MAILWRIGHT_BROKER_URL=url), url
    assert "MAILWRIGHT_BROKER_URL" in program.refused("beat", MAILWRIGHT_BROKER_URL="hunter2")
    assert "MAILWRIGHT_BROKER_URL" in program.refused("relay", MAILWRIGHT_BROKER_URL="hunter2")
    # Accepted means committed in Postgres: sending needs no broker.
    assert program.run(*letter(), MAILWRIGHT_BROKER_URL="redis://127.0.0.1:1/0").code == 0


def test_settings_that_are_none(program: Program) -> None:
    for name, value in (
        ("CONCURRENCY", "many"), ("CONCURRENCY", "0"), ("LEASE_SECONDS", "nan"), ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"), ("POLL_MIN_SECONDS", ""), ("EVENT_STREAM_LENGTH", "x\n\n\n\ny"),
    ):  # fmt: skip
        assert f"MAILWRIGHT_{name}" in program.refused("provider", "list", **{f"MAILWRIGHT_{name}": value})


def test_a_settings_file_or_home_that_is_none(program: Program) -> None:
    (program.directory / ".env").write_bytes(b"MAILWRIGHT_LOG_LEVEL=\xff\xfe\n")
    assert ".env" in program.refused("provider", "list")
    (program.directory / ".env").unlink()
    assert "MAILWRIGHT_HOME" in program.refused("provider", "list", MAILWRIGHT_HOME="~no-such-user/x")
    assert "MAILWRIGHT_EVENT_SINKS" in program.refused("relay", MAILWRIGHT_EVENT_SINKS="log,pigeon")
