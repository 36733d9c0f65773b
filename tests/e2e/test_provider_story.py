"""The provider story, told by the real command line: each step is a process of its own."""

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import text

from schema.database import Database
from tasks.secrets import new_key_line

PROGRAM = Path(sys.executable).parent / "mailwright"
PASSWORD = "correct horse battery staple"
AOL = (
    "provider", "add", "AOL mail",
    "--imap-host", "imap.aol.com", "--imap-port", "993", "--imap-security", "tls",
    "--smtp-host", "smtp.aol.com", "--smtp-port", "465", "--smtp-security", "tls", "--smtp-timeout", "40",
    "--login", "email",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Runs ``mailwright`` over the test's database, from an empty directory."""

    environment: dict[str, str]
    directory: Path

    def run(self, *words: str, given: bytes = b"") -> Told:
        done = subprocess.run(
            [PROGRAM, *words],
            input=given,
            capture_output=True,
            env=self.environment,
            cwd=self.directory,
            timeout=60,
            check=False,
        )
        told = Told(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in told.out + told.err
        assert PASSWORD not in told.out + told.err
        return told

    def ok(self, *words: str, given: bytes = b"") -> Told:
        told = self.run(*words, given=given)
        assert told.code == 0, told.err
        return told

    def refused(self, *words: str, given: bytes = b"") -> str:
        """One clear sentence on stderr, at most two lines, exit code 1."""
        told = self.run(*words, given=given)
        assert told.code == 1, (words, told)
        assert told.out == ""
        assert told.err.startswith("mailwright: ")
        assert len(told.err.splitlines()) <= 2, told.err
        return told.err


@pytest.fixture
def mailwright(database_url: str, tmp_path: Path) -> CommandLine:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAILWRIGHT_") and name != "PYTHONDONTWRITEBYTECODE"  # three times the start
    }
    environment |= {
        "MAILWRIGHT_DATABASE_URL": database_url,
        "MAILWRIGHT_KEY_RING": new_key_line(),
        "MAILWRIGHT_HOME": str(tmp_path / "home"),
    }
    directory = tmp_path / "work"
    directory.mkdir()
    return CommandLine(environment, directory)


def png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def add_mailbox(address: str, *more: str) -> Sequence[str]:
    return ("--json", "mailbox", "add", address, "--password-stdin", "--no-test", *more)


def test_the_provider_story(mailwright: CommandLine) -> None:
    """An administrator lets bob in; bob describes AOL; anna's mailbox finds it; the audit tells it all."""
    logo = mailwright.directory / "logo.png"
    logo.write_bytes(png())
    secret = PASSWORD.encode() + b"\n"

    # Without the permission bob is refused, with the reason.
    mailwright.ok("user", "add", "bob")
    refusal = mailwright.refused("--as", "bob", *AOL)
    assert 'user "bob"' in refusal
    assert "CanManageAdministration" in refusal
    assert "Access to 'Access rights' workspace" in refusal
    assert mailwright.ok("grant", "check", "bob", "CanManageAdministration").out.startswith("no: ")

    # He is granted it and adds the provider.
    mailwright.ok("grant", "add", "CanManageAdministration", "--user", "bob")
    assert mailwright.ok("grant", "check", "bob", "CanManageAdministration").out.startswith("yes: ")
    mailwright.ok("--as", "bob", *AOL, "--logo", str(logo))
    mailwright.ok("--as", "bob", "domain", "add", "aol.com", "--provider", "AOL mail")
    (card,) = mailwright.ok("--json", "provider", "show", "AOL mail").rows
    assert (card["imap_host"], card["imap_port"], card["imap_security"]) == ("imap.aol.com", 993, "tls")
    assert (card["smtp_host"], card["smtp_port"], card["smtp_security"]) == ("smtp.aol.com", 465, "tls")
    assert (card["smtp_timeout"], card["login_mode"], card["logo_type"]) == (40, "email", "image/png")
    assert card["domains"] == ["aol.com"]
    shown = mailwright.ok("provider", "show", "AOL mail").out
    for label in ("Use SSL", "Use email address as login", "Allow sending emails", "IMAP / SMTP"):
        assert label in shown
    mailwright.ok("provider", "logo", "AOL mail", "--output", "copy.png")
    assert (mailwright.directory / "copy.png").read_bytes() == png()

    # A mailbox needs no provider named; each login mode derives its login.
    (anna,) = mailwright.ok(*add_mailbox("anna@aol.com"), given=secret).rows
    assert (anna["login"], anna["provider"]) == ("anna@aol.com", "AOL mail")
    hosts = ("--imap-host", "imap.user.example")
    mailwright.ok("provider", "add", "By user", *hosts, "--login", "user", "--domain", "MÜNCHEN.example")
    (test,) = mailwright.ok(*add_mailbox("test@münchen.example"), given=secret).rows
    assert (test["login"], test["provider"]) == ("test", "By user")
    mailwright.ok("provider", "add", "By hand", *hosts, "--login", "manual", "--domain", "hand.example")
    assert "--login" in mailwright.refused(*add_mailbox("otto@hand.example"), given=secret)
    (otto,) = mailwright.ok(*add_mailbox("otto@hand.example", "--login", "OTTO-7"), given=secret).rows
    assert otto["login"] == "OTTO-7"
    assert "mailwright domain add firma.example" in mailwright.refused(
        *add_mailbox("anna@firma.example"), given=secret
    )

    # A domain has one provider; the IDN is kept as A-label; what is in use stays.
    assert '"AOL mail"' in mailwright.refused("domain", "add", "AOL.com", "--provider", "By user")
    domains = {row["domain"]: row["unicode"] for row in mailwright.ok("--json", "domain", "list").rows}
    assert domains["xn--mnchen-3ya.example"] == "münchen.example"
    refusal = mailwright.refused("provider", "remove", "AOL mail")
    assert "1 mailbox" in refusal
    assert "mailwright provider disable" in refusal
    mailwright.ok("provider", "disable", "AOL mail")
    (listed,) = [r for r in mailwright.ok("--json", "provider", "list").rows if r["name"] == "AOL mail"]
    assert (listed["disabled"], listed["mailboxes"]) == (True, 1)

    # The audit tells it all, newest first, and no secret.
    told = mailwright.ok("--json", "audit", "list", "--limit", "100")
    story = [(row["actor"], row["action"], row["name"]) for row in reversed(told.rows)]
    assert story[:4] == [
        ("administrator", "user.added", "bob"),
        ("administrator", "grant.added", "CanManageAdministration"),
        ("bob", "provider.added", "AOL mail"),
        ("bob", "domain.added", "AOL mail"),
    ]
    assert story[-1] == ("administrator", "provider.disabled", "AOL mail")
    changes = next(row["changes"] for row in told.rows if row["actor"] == "bob" and "logo" in row["changes"])
    assert changes["smtp_timeout"] == [None, 40]
    assert changes["logo"] == [None, f"image/png, {len(png())} bytes"]


def test_bad_input_gets_a_clear_sentence_and_leaves_no_half_made_row(
    mailwright: CommandLine, db: Database
) -> None:
    huge, fake, key = (mailwright.directory / name for name in ("huge.png", "fake.png", "key.pem"))
    with huge.open("wb") as file:
        file.write(png())
        file.truncate(10 * 2**20)
    fake.write_bytes(b"\x89PNG\r\n\x1a\n" + b"I am none" * 99)
    key.write_bytes(trustme.CA().private_key_pem.bytes())
    plain = ("provider", "add", "X", "--imap-host", "imap.x.example")

    assert "256 KiB" in mailwright.refused(*plain, "--logo", str(huge))
    assert "image/png" in mailwright.refused(*plain, "--logo", str(fake))
    assert "private key" in mailwright.refused(*plain, "--ca", str(key))
    assert "1 to 65535" in mailwright.refused(*plain, "--imap-port", "70000")
    assert "not a domain" in mailwright.refused(*plain, "--domain", "ok.example", "--domain", "not a domain")
    assert "control characters" in mailwright.refused("provider", "add", "a\x1b[2Jb", *plain[3:])
    assert "--imap-host" in mailwright.refused("provider", "add", "X")
    assert "last administrator" in mailwright.refused("grant", "remove", "1")
    assert mailwright.run(*plain, "--imap-security", "ssl").code == 2

    with db.begin() as session:
        for table in ("providers", "provider_domains", "audit", "events_pending"):
            assert session.execute(text(f"SELECT count(*) FROM mailwright.{table}")).scalar_one() == 0, table


def test_a_database_that_is_down_or_empty_is_told(mailwright: CommandLine, postgres: Any) -> None:
    down = mailwright.environment | {"MAILWRIGHT_DATABASE_URL": "postgresql://x:hunter2@127.0.0.1:1/x"}
    told = CommandLine(down, mailwright.directory).refused("provider", "list")
    assert "cannot be reached" in told
    assert "hunter2" not in told
    bare = mailwright.environment | {"MAILWRIGHT_DATABASE_URL": postgres.url("postgres")}
    empty = CommandLine(bare, mailwright.directory)
    assert "mailwright db upgrade" in empty.refused("provider", "list")
    assert "mailwright db upgrade" in empty.refused("db", "check")
    assert mailwright.ok("db", "check").out.startswith("The database is up to date")
