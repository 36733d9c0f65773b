"""``mailwright send`` and ``mailwright outbox``, as a person or a script calls them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings
from lab.servers.smtp_faults import Answer, FaultySmtp
from lab.world import Ports, add_mailbox, add_provider
from tasks import outbound
from tasks.access import SYSTEM
from tasks.runtime import Runtime

ADDRESS = "anna@test.example"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(settings: Settings, runtime: Runtime) -> Run:
    """Run the command line on the test's database."""
    assert settings.database_url is not None
    assert settings.key_ring is not None
    environment = os.environ | {
        "MAILWRIGHT_DATABASE_URL": settings.database_url.get_secret_value(),
        "MAILWRIGHT_KEY_RING": settings.key_ring.get_secret_value(),
        "MAILWRIGHT_HOME": str(settings.home),
    }

    def call(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("mailwright")), *words],
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return call


def told(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_message_is_sent_shown_and_its_attachment_arrives(
    run: Run, runtime: Runtime, tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_bytes(b"hello\n")
    with FaultySmtp() as server:
        provider = add_provider(runtime, Ports(smtp=server.port), sent_copy="none")
        add_mailbox(runtime, provider, ADDRESS, "secret")
        words = ["--from", ADDRESS, "--to", "bob@far.example", "--subject", "Hi", "--text-file", "-"]
        sent = told(
            run("--json", "send", *words, "--attach", str(tmp_path / "note.txt"), text="Good morning")
        )
        outbound.dispatch(SYSTEM, runtime)

        shown = told(run("--json", "outbox", "show", sent["id"]))
        waited = told(
            run("--json", "send", *words, "--idempotency-key", "k", "--not-before", "2001-01-01", text="x")
        )
        assert not waited["duplicate"]
        again = told(
            run("--json", "send", *words, "--idempotency-key", "k", "--not-before", "2001-01-01", text="x")
        )

    assert shown["state"] == "sent"
    assert shown["recipients"][0]["code"] == 250
    assert b"aGVsbG8K" in server.accepted[0].content
    assert (again["id"], again["duplicate"]) == (waited["id"], True)


def test_waiting_tells_the_failure_by_its_exit_code(run: Run, runtime: Runtime) -> None:
    with FaultySmtp({"rcpt": Answer(b"550 5.1.1 nobody here\r\n")}) as server:
        provider = add_provider(runtime, Ports(smtp=server.port), sent_copy="none")
        add_mailbox(runtime, provider, ADDRESS, "secret")
        words = (
            "send",
            "--from",
            ADDRESS,
            "--to",
            "bob@far.example",
            "--text",
            "x",
            "--idempotency-key",
            "k",
        )
        run(*words)
        outbound.dispatch(SYSTEM, runtime)

        done = run(*words, "--wait")

    assert done.returncode == 1
    assert "550 5.1.1 nobody here" in done.stdout
    assert "Traceback" not in done.stderr


def test_cancel_list_and_retry(run: Run, runtime: Runtime) -> None:
    add_mailbox(runtime, add_provider(runtime, Ports(smtp=9)), ADDRESS, "secret")
    uid = told(run("--json", "send", "--from", ADDRESS, "--to", "bob@far.example", "--text", "x"))["id"]

    late = run("send", "--from", ADDRESS, "--to", "b@far.example", "--wait", "--timeout", "0.2")
    assert late.returncode == 1
    assert late.stderr.count("\n") == 2
    assert told(run("--json", "outbox", "cancel", uid))["state"] == "cancelled"
    assert told(run("--json", "outbox", "list", "--state", "cancelled"))["id"] == uid
    assert told(run("--json", "outbox", "retry", uid))["state"] == "queued"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "nobody"), "is no mail address"),
        ((), "no recipients"),
        (("--to", "a@b.example", "--subject", "x\nBcc: e@x.example"), "line end"),
        (("--to", "a@b.example", "--attach", "/nowhere/at/all"), "cannot be read"),
        (("--to", "a@b.example", "--header", "Bcc: e@x.example"), "is not set this way"),
        (("--to", "a@b.example", "--as-address", "ceo@b.example"), "may not send as"),
    ],
)
def test_bad_input_gets_one_clear_sentence(
    run: Run, runtime: Runtime, words: tuple[str, ...], said: str
) -> None:
    add_mailbox(runtime, add_provider(runtime, Ports(smtp=9)), ADDRESS, "secret")

    done = run("send", "--from", ADDRESS, *words)

    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") <= 2
    assert "Traceback" not in done.stderr
    assert json.loads("[" + ",".join(run("--json", "outbox", "list").stdout.splitlines()) + "]") == []
