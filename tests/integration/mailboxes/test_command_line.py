"""``mailbox``, ``secret`` and ``doctor`` as a person or a program calls them."""

import io
import json
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from schema.tables.providers import Provider
from tests.integration.mailboxes.conftest import PASSWORD, Rows
from worker.cli import main


@dataclass(frozen=True, slots=True)
class Ran:
    """What one call printed, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory of the test's own."""
    return tmp_path / "home"


@pytest.fixture
def run(
    database_url: str,
    valkey_url: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Run]:
    """Call ``mailwright`` on the test's database; the password must be in no output whatsoever."""
    for name in [name for name in os.environ if name.startswith("MAILWRIGHT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MAILWRIGHT_HOME", str(home))
    monkeypatch.setenv("MAILWRIGHT_DATABASE_URL", database_url)
    monkeypatch.setenv("MAILWRIGHT_BROKER_URL", valkey_url)
    monkeypatch.chdir(home.parent)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def ran(*arguments: str, stdin: str = "", **more: str) -> Ran:
        with monkeypatch.context() as patch:
            for name, value in more.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["mailwright", *arguments])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            try:
                main()
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert PASSWORD not in out + err
        return Ran(code, out, err)

    yield ran
    root.handlers[:] = handlers
    root.setLevel(level)


def assert_refused(ran: Ran, *words: str) -> None:
    assert ran.code == 1, ran
    assert 1 <= len(ran.err.strip().splitlines()) <= 2, ran.err
    for word in words:
        assert word in ran.err


def test_a_key_ring_is_made_once_and_for_its_owner_alone(run: Run, home: Path) -> None:
    assert run("secret", "init").code == 0
    before = (home / "keyring").read_bytes()

    assert stat.S_IMODE((home / "keyring").stat().st_mode) == 0o600
    assert_refused(run("secret", "init"), "already", "secret rotate")
    assert (home / "keyring").read_bytes() == before


def test_a_mailbox_s_life(run: Run, provider: Provider, home: Path) -> None:
    assert run("secret", "init").code == 0

    added = run(
        "--json", "mailbox", "add", "anna@a.example", "--password-stdin", "--no-test", stdin=PASSWORD + "\n"
    )
    assert added.code == 0, added
    assert added.json()["login"] == "anna@a.example"

    assert run("mailbox", "pause", "anna@a.example", "--reason", "moving", "--until", "2999-01-01").code == 0
    shown = run("--json", "mailbox", "show", "anna@a.example").json()
    assert (shown["state"], shown["reason"]) == ("paused", "moving")
    assert run("mailbox", "resume", "anna@a.example").code == 0

    assert run("mailbox", "edit", "anna@a.example", "--display-name", "Anna", "--no-send").code == 0
    listed = run("--json", "mailbox", "list").json()
    assert (listed["display_name"], listed["send"], listed["state"]) == ("Anna", False, "active")
    assert "anna@a.example" in run("mailbox", "list").out

    rotated = run("--json", "secret", "rotate", "--drop-old")
    assert rotated.code == 0, rotated
    assert rotated.json()["resealed"] == 1
    assert len((home / "keyring").read_text().split()) == 1

    assert_refused(run("mailbox", "confirm", "anna@a.example"), "waits for no confirmation")
    assert run("mailbox", "remove", "anna@a.example").code == 0
    assert_refused(run("mailbox", "show", "anna@a.example"), "there is no mailbox anna@a.example")


def test_what_cannot_be_gets_one_sentence_and_leaves_no_row(run: Run, provider: Provider, rows: Rows) -> None:
    def add(*arguments: str, stdin: str = PASSWORD, **more: str) -> Ran:
        return run("mailbox", "add", *arguments, "--no-test", stdin=stdin, **more)

    assert_refused(add("anna@a.example", "--password-stdin"), "no key ring", "mailwright secret init")
    assert run("secret", "init").code == 0
    assert_refused(add("anna@a.example"), "--password-stdin")
    assert_refused(add("anna@a.example", "--password-stdin", stdin="\n"), "empty")
    assert_refused(add("anna@firma.example", "--password-stdin"), "no provider handles", "--provider NAME")
    assert_refused(add("anna", "--password-stdin"), "not an e-mail address")
    assert_refused(
        add("a@a.example", "--password-stdin", MAILWRIGHT_DATABASE_URL="postgresql://127.0.0.1:1/x"),
        "cannot be reached",
    )
    assert_refused(
        run("--as", "bob", "mailbox", "add", "a@a.example", "--password-stdin", stdin=PASSWORD),
        "CanManageMailboxes",
    )
    assert rows("SELECT 1 FROM mailwright.mailboxes") == []


def test_a_failed_connection_test_tells_the_step_and_the_remedy(
    run: Run, provider: Provider, rows: Rows
) -> None:
    assert run("secret", "init").code == 0
    rows(
        "UPDATE mailwright.providers SET imap_host = '127.0.0.1', imap_port = 1, smtp_host = '127.0.0.1', "
        "smtp_port = 1"
    )

    added = run("mailbox", "add", "anna@a.example", "--password-stdin", stdin=PASSWORD)
    assert added.code == 1
    assert "IMAP  connect    FAILED" in added.out
    assert "Check the port" in added.out
    assert_refused(added, "failed at connect", "Check the port")

    machine = run("--json", "mailbox", "add", "anna@a.example", "--password-stdin", stdin=PASSWORD)
    assert machine.code == 1
    assert [test["ok"] for test in machine.json()["tests"]] == [False, False]
    assert rows("SELECT 1 FROM mailwright.mailboxes") == []

    assert (
        run("mailbox", "add", "anna@a.example", "--password-stdin", "--store-anyway", stdin=PASSWORD).code
        == 0
    )
    assert run("mailbox", "test", "anna@a.example").code == 1


def test_wrong_usage_exits_with_2(run: Run) -> None:
    assert run("mailbox", "add").code == 2
    assert run("mailbox", "confirm").code == 2
    assert run("mailbox", "edit", "anna@a.example").code == 2


def test_the_doctor_finds_a_healthy_set_up_healthy(run: Run, provider: Provider) -> None:
    assert run("secret", "init").code == 0

    checks = [json.loads(line) for line in run("--json", "doctor").out.splitlines()]

    verdicts = {check["check"]: check["verdict"] for check in checks}
    assert verdicts.pop("durability") == "failed"  # the test's Postgres runs without fsync
    assert verdicts.pop("worker and beat") == "skipped"
    assert set(verdicts.values()) == {"ok"}, checks


@pytest.mark.parametrize(
    ("change", "check", "remedy"),
    [
        ({"MAILWRIGHT_DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "database", "mailwright up"),
        ({"MAILWRIGHT_BROKER_URL": "redis://127.0.0.1:1/0"}, "broker", "MAILWRIGHT_BROKER_URL"),
        ({"MAILWRIGHT_KEY_RING_FILE": "/nonexistent/ring"}, "key ring", "mailwright secret init"),
    ],
)
def test_the_doctor_names_what_is_wrong_and_the_way_on(
    run: Run, change: dict[str, str], check: str, remedy: str
) -> None:
    assert run("secret", "init").code == 0

    ran = run("--json", "doctor", **change)

    assert ran.code == 1
    found = {line["check"]: line for line in map(json.loads, ran.out.splitlines())}
    assert found[check]["verdict"] == "failed"
    assert remedy in found[check]["remedy"] + found[check]["found"]


def test_the_doctor_sees_a_ring_open_to_others_and_secrets_that_do_not_open(
    run: Run, provider: Provider, home: Path, rows: Rows
) -> None:
    assert run("secret", "init").code == 0
    assert run("mailbox", "add", "anna@a.example", "--password-stdin", "--no-test", stdin=PASSWORD).code == 0
    (home / "keyring").chmod(0o644)
    rows("UPDATE mailwright.mailbox_secrets SET sealed = sealed || 'x'::bytea")

    ran = run("doctor")

    assert ran.code == 1
    assert "chmod 600" in ran.out
    assert "1 of 1 do not open, such as anna@a.example" in ran.out


def test_the_doctor_sees_an_unmigrated_database(run: Run, rows: Rows) -> None:
    rows("DROP SCHEMA mailwright CASCADE")
    assert run("secret", "init").code == 0

    ran = run("doctor")

    assert ran.code == 1
    assert "mailwright db upgrade" in ran.out
