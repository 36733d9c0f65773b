"""``message mark``, ``move``, ``copy``, ``delete`` and ``append`` as a person or a program calls them."""

import io
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.mail.commands.conftest import Box
from tests.mail.sync.odd_imap import mail
from worker.cli import main


@dataclass(frozen=True, slots=True)
class Ran:
    """What one call printed, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The answer; the worker in this process logs to standard output too."""
        (answer,) = [line for line in self.out.splitlines() if line.startswith('{"')]
        return json.loads(answer)


Run = Callable[..., Ran]


@pytest.fixture
def run(
    database_url: str,
    valkey_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Call ``mailwright`` on the test's database."""
    for name in [name for name in os.environ if name.startswith("MAILWRIGHT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MAILWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MAILWRIGHT_DATABASE_URL", database_url)
    monkeypatch.setenv("MAILWRIGHT_BROKER_URL", valkey_url)
    monkeypatch.chdir(tmp_path)

    def ran(*arguments: str, stdin: bytes = b"") -> Ran:
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["mailwright", *arguments])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            try:
                main()
                code = 0
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        root.handlers[:] = handlers
        root.setLevel(level)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Ran(code, out, err)

    return ran


@pytest.fixture
def synced(box: Callable[..., Box]) -> Iterator[Box]:
    """A mailbox with mails 1 to 3 that a worker syncs whenever a command is due."""
    mailbox = box(1, 2, 3)
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.1):
            if "queued" in mailbox.states():
                mailbox.sync()

    worker = threading.Thread(target=work)
    worker.start()
    yield mailbox
    over.set()
    worker.join()


def test_messages_are_changed_from_the_command_line(run: Run, synced: Box, tmp_path: Path) -> None:
    one, two, three = (str(synced.message(number)) for number in (1, 2, 3))
    (tmp_path / "seven.eml").write_bytes(mail(7))

    assert run("--json", "message", "mark", one, two, "--read", "--flagged", "--wait").json()["done"] == 2
    assert run("message", "mark", one, "--unflagged", "--wait").code == 0
    assert run("message", "move", one, "Archive", "--wait").code == 0
    assert run("message", "copy", two, "Archive", "--wait").code == 0
    assert run("message", "delete", three, "--wait").code == 0
    assert run("message", "append", synced.address, "Drafts", "seven.eml", "--read", "--wait").code == 0

    assert synced.there() == {2: ("\\Flagged", "\\Seen")}
    assert synced.there("Archive") == {1: ("\\Seen",), 2: ("\\Flagged", "\\Seen")}
    assert set(synced.there("Trash")) == {3}
    assert synced.there("Drafts") == {7: ("\\Seen",)}


def test_what_is_wrong_is_said_in_a_line(run: Run, box: Callable[..., Box]) -> None:
    one = str(box(1).message(1))

    asked = {
        "how to mark": ("mark", one),
        "no folder": ("move", one, "Nowhere"),
        "there is no message": ("mark", "00000000-0000-7000-8000-000000000000", "--read"),
        "it stays queued": ("mark", one, "--read", "--wait", "--timeout", "0.1"),  # no worker runs
    }
    for words, command in asked.items():
        ran = run("message", *command)
        assert ran.code != 0, command
        assert words in ran.err
    assert run("--json", "message", "mark", one, "--flagged").json()["queued"] == 1


def test_html_of_strangers_is_printed_cleaned(run: Run, box: Callable[..., Box]) -> None:
    mailbox = box(1)
    rich = b"Subject: 2\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<b onclick=x()>\x1b[2JHi\r\n"
    mailbox.server.deliver(mailbox.address, rich)
    mailbox.sync()
    plain, html = (str(mailbox.message(number)) for number in (1, 2))

    assert run("message", "show", "--html", html).out.endswith("\n<b>?[2JHi\n</b>\n")
    assert run("--json", "message", "show", html).json()["html"] == "<b>\x1b[2JHi\n</b>"
    none = run("message", "show", "--html", plain)
    assert none.code != 0
    assert f"message {plain} has no HTML" in none.err
