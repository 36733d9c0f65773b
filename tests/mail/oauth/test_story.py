"""From a provider that wants OAuth 2.0 to mail that flows, by the real command line; no secret anywhere."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from lab.servers.dovecot import Dovecot
from lab.servers.recording import Behaviour, RecordingSmtp
from lab.servers.token_server import TokenServer
from lab.world import sync_now
from tasks import outbound
from tasks.access import SYSTEM
from tasks.runtime import Runtime
from tests.mail.oauth.conftest import CLIENT_SECRET, Rows

TABLES = (
    "SELECT string_agg(format('SELECT to_jsonb(t)::text AS row FROM mailwright.%I AS t', table_name), "
    "' UNION ALL ') AS sql FROM information_schema.tables WHERE table_schema = 'mailwright'"
)
PROGRAM = Path(sys.executable).with_name("mailwright")


@dataclass
class Shell:
    """The command line on the test's database; ``heard`` is all it ever printed."""

    environment: dict[str, str]
    directory: Path
    heard: str = ""

    def run(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        """Run to the end and give standard output."""
        return self.talk(lambda _line: None, *arguments, stdin=stdin, code=code)

    def talk(self, answer: Callable[[str], None], *arguments: str, stdin: str = "", code: int = 0) -> str:
        """As `run`, each line of standard error told to ``answer`` as it comes."""
        process = subprocess.Popen(
            [str(PROGRAM), *arguments],
            env=self.environment,
            cwd=self.directory,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with process:
            process.stdin.write(stdin)
            process.stdin.close()
            errors = ""
            for line in process.stderr:
                errors += line
                answer(line.strip())
            out = process.stdout.read()
        self.heard += out + errors
        assert process.returncode == code, errors
        return out


@pytest.fixture
def shell(settings: Settings, tmp_path: Path) -> Shell:
    """The command line as an administrator has it."""
    assert settings.database_url is not None
    assert settings.broker_url is not None
    assert settings.key_ring is not None
    ours = {
        "MAILWRIGHT_HOME": str(tmp_path),
        "MAILWRIGHT_DATABASE_URL": settings.database_url.get_secret_value(),
        "MAILWRIGHT_BROKER_URL": settings.broker_url.get_secret_value(),
        "MAILWRIGHT_KEY_RING": settings.key_ring.get_secret_value(),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAILWRIGHT_")}
    return Shell(kept | ours, tmp_path)


@pytest.fixture
def smtp(token_server: TokenServer) -> Iterator[RecordingSmtp]:
    """A server that sends by access token."""
    behaviour = Behaviour(mechanisms=("XOAUTH2",), whose=token_server.whose)
    with RecordingSmtp(behaviour) as server:
        yield server


@pytest.fixture
def account(
    shell: Shell, token_server: TokenServer, oauth_dovecot: Dovecot, smtp: RecordingSmtp, address: str
) -> str:
    """A mailbox of a provider that wants OAuth 2.0 for both protocols, without a consent."""
    shell.run(
        "provider", "add", "Test", "--domain", "test.example",
        "--imap-host", "127.0.0.1", "--imap-port", str(oauth_dovecot.imap_port),
        "--imap-security", "none", "--imap-authentication", "oauth2",
        "--smtp-host", "127.0.0.1", "--smtp-port", str(smtp.port),
        "--smtp-security", "none", "--smtp-authentication", "oauth2", "--sent-copy", "none",
        "--oauth-client-id", token_server.client_id, "--oauth-client-secret-stdin",
        "--oauth-token-url", f"{token_server.url}/token", "--oauth-scopes", "mail offline_access",
        "--oauth-authorization-url", f"{token_server.url}/authorize",
        "--oauth-device-url", f"{token_server.url}/device",
        stdin=CLIENT_SECRET,
    )  # fmt: skip
    assert f"mailwright mailbox authorize {address}" in shell.run("mailbox", "add", address)
    return address


def browser(line: str) -> None:
    """Follow the address that is told, and come back."""
    if "/authorize?" in line:
        with urllib.request.urlopen(line.strip(), timeout=10) as page:  # noqa: S310  the lab's own
            assert b"You can close this window" in page.read()


def phone(server: TokenServer, address: str) -> Callable[[str], None]:
    """Enter the code that is told."""

    def answer(line: str) -> None:
        if len(line) == 8 and line.isalnum():
            server.approve(line, address)

    return answer


def state(shell: Shell, address: str) -> str:
    return str(json.loads(shell.run("--json", "mailbox", "show", address))["state"])


def test_consent_sync_expiry_revocation_and_consent_again(
    shell: Shell,
    runtime: Runtime,
    token_server: TokenServer,
    oauth_dovecot: Dovecot,
    smtp: RecordingSmtp,
    account: str,
    rows: Rows,
    capsys: pytest.CaptureFixture[str],
) -> None:
    token_server.manners.user = account
    oauth_dovecot.deliver(account, b"Subject: first\r\n\r\n1\r\n")
    assert state(shell, account) == "awaiting consent"
    assert rows("SELECT 1 FROM mailwright.schedule WHERE enabled") == []

    told = json.loads(shell.talk(browser, "--json", "mailbox", "authorize", account).splitlines()[-1])
    assert [(test["protocol"], test["ok"]) for test in told["tests"]] == [("imap", True), ("smtp", True)]
    assert state(shell, account) == "active"
    mailbox_id = rows("SELECT id FROM mailwright.mailboxes")[0]["id"]
    sync_now(runtime, mailbox_id, passes=2)

    rows("UPDATE mailwright.mailbox_tokens SET refresh_at = now(), expires_at = now()")
    with runtime.db.begin() as session:
        outbound.enqueue(SYSTEM, session, account, {"to": "bob@remote.example", "subject": "Hi", "text": "."})
    assert outbound.dispatch(SYSTEM, runtime, 10.0).tally.sent == 1
    assert token_server.asked["refresh_token"] == 1
    assert [accepted.mail_from for accepted in smtp.accepted()] == [account]

    token_server.revoke(account)
    rows("UPDATE mailwright.mailbox_tokens SET refresh_at = now(), expires_at = now()")
    sync_now(runtime, mailbox_id)
    assert state(shell, account) == "needs_attention"
    oauth_dovecot.deliver(account, b"Subject: second\r\n\r\n2\r\n")

    shell.talk(phone(token_server, account), "mailbox", "authorize", account, "--device")
    assert state(shell, account) == "active"
    sync_now(runtime, mailbox_id)

    subjects = [row["subject"] for row in rows("SELECT subject FROM mailwright.messages ORDER BY id")]
    assert subjects == ["first", "second"]
    types = rows("SELECT type FROM mailwright.events_pending WHERE type LIKE 'mailbox.%' ORDER BY id")
    assert [row["type"] for row in types] == [
        "mailbox.connected",
        "mailbox.needs_attention",
        "mailbox.recovered",
    ]
    shell.heard += capsys.readouterr().out  # the log
    assert "token.refreshed" in shell.heard
    assert_no_secret(shell, token_server, rows)


def test_consent_by_another_account_is_tested_and_not_stored(
    shell: Shell, token_server: TokenServer, account: str, rows: Rows
) -> None:
    token_server.manners.user = "somebody@test.example"

    shell.talk(browser, "mailbox", "authorize", account, code=1)

    assert "with this very account" in shell.heard
    assert rows("SELECT 1 FROM mailwright.mailbox_tokens") == []
    assert state(shell, account) == "awaiting consent"
    assert_no_secret(shell, token_server, rows)


def test_consent_declined_forged_or_never_given(
    shell: Shell, token_server: TokenServer, account: str, rows: Rows
) -> None:
    token_server.manners.consents = False
    shell.talk(browser, "mailbox", "authorize", account, code=1)
    assert "access_denied the user said no" in shell.heard

    forged: list[int] = []

    def attacker(line: str) -> None:
        if "/authorize?" in line:
            port = line.partition("localhost%3A")[2].partition("%2F")[0]
            url = f"http://127.0.0.1:{port}/?code=stolen&state=guessed"
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(url, timeout=5)
            forged.append(caught.value.code)

    shell.talk(attacker, "mailbox", "authorize", account, "--wait", "1", code=1)
    assert forged == [404]
    assert "nobody consented within 1 seconds" in shell.heard
    shell.talk(lambda _line: None, "mailbox", "authorize", account, "--device", "--wait", "1", code=1)
    assert rows("SELECT 1 FROM mailwright.mailbox_tokens") == []


def assert_no_secret(shell: Shell, server: TokenServer, rows: Rows) -> None:
    """Nothing printed and nothing stored holds a token or the client's secret."""
    everything: list[dict[str, Any]] = rows(rows(TABLES)[0]["sql"])
    assert len(everything) > 10
    dump = "\n".join(str(row["row"]) for row in everything) + shell.heard
    secrets = [*server.issued, CLIENT_SECRET]
    assert len(secrets) > 2
    for secret in secrets:
        for form in (secret, secret.encode().hex()):
            assert form not in dump
