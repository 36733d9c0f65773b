"""The facade: the same story on the real servers and on those from wheels, as root and as nobody."""

import hashlib
import json
import os
import shutil
import smtplib
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from imapclient import IMAPClient

import lab
from lab.corpus import small
from lab.ports import port_open, wait_until
from lab.servers import Mail, real_servers_possible, start_mail
from lab.servers.wheels import WheelsMail
from tasks.wire.mime import read

ANNA, BOB = "anna@example.org", "bob@firma.example"
USERS = {ANNA: "pw one", BOB: "zwoelf: 12"}
DOMAINS = ["example.org", "firma.example"]


@pytest.fixture(scope="module", params=[start_mail, WheelsMail], ids=["best", "wheels"])
def mail(request: pytest.FixtureRequest) -> Iterator[Mail]:
    start: Callable[..., Mail] = request.param
    running = start(None, USERS, DOMAINS)
    yield running
    running.stop()


def imap(mail: Mail, address: str) -> Any:
    context = ssl.create_default_context(cafile=str(mail.ca_file))
    client: Any = IMAPClient(mail.imap_host, mail.imap_port, ssl=True, ssl_context=context, timeout=30)
    client.login(address, USERS[address])
    return client


def send(mail: Mail, to: str, text: bytes) -> None:
    with smtplib.SMTP(mail.smtp_host, mail.smtp_port, timeout=10) as client:
        client.starttls(context=ssl.create_default_context(cafile=str(mail.ca_file)))
        client.login(ANNA, USERS[ANNA])
        client.sendmail(ANNA, [to], text)


def test_as_root_the_real_servers_are_taken() -> None:
    mail = start_mail(None, {}, ["example.org"])
    try:
        assert ("Dovecot" in mail.kind and "Postfix" in mail.kind) == real_servers_possible()
    finally:
        mail.stop()


def test_delivered_mail_is_stored_as_served(mail: Mail) -> None:
    messages = list(small(60, seed=11))
    for message in messages:
        mail.deliver(ANNA, message)

    with imap(mail, ANNA) as client:
        client.select_folder("INBOX", readonly=True)
        fetched = client.fetch(client.search(), ["BODY.PEEK[]"])
    served = [hashlib.sha256(fetched[at][b"BODY[]"]).hexdigest() for at in sorted(fetched)]
    assert len(served) == 60
    assert mail.stored(ANNA) == served
    whole = [(at, message) for at, message in enumerate(messages) if b"\0" not in message]
    assert all(served[at] == hashlib.sha256(message).hexdigest() for at, message in whole)


def test_sent_mail_arrives_and_an_append_is_stored(mail: Mail) -> None:
    send(mail, BOB, b"From: a@x.example\r\nMessage-ID: <sent@x>\r\n\r\nhello\r\n")
    wait_until(lambda: len(mail.stored(BOB)) == 1, 20, "arrived")

    copy = b"From: a@x.example\r\n\r\ncopy\r\n"
    with imap(mail, BOB) as client:
        assert b"UIDPLUS" in client.capabilities()
        client.append("Sent", copy)
    assert mail.stored(BOB, "Sent") == [hashlib.sha256(copy).hexdigest()]


def test_new_folders_and_late_users(mail: Mail) -> None:
    mail.add_user("late@example.org", "pw")
    mail.deliver("late@example.org", b"Subject: x\r\n\r\n", "Projects")

    assert len(mail.stored("late@example.org", "Projects")) == 1
    send(mail, "late@example.org", b"Subject: y\r\n\r\n")
    wait_until(lambda: len(mail.stored("late@example.org")) == 1, 20, "arrived")


def test_mail_for_who_is_gone_is_accepted_and_comes_back_as_a_report(mail: Mail) -> None:
    mail.add_gone("gone@example.org")
    before = len(mail.stored(ANNA))

    send(mail, "gone@example.org", b"From: a@x.example\r\nMessage-ID: <lost@x>\r\n\r\nhello\r\n")

    wait_until(lambda: len(mail.stored(ANNA)) == before + 1, 20, "the bounce")
    with imap(mail, ANNA) as client:
        client.select_folder("INBOX", readonly=True)
        newest = client.search()[-1]
        report = read(client.fetch([newest], ["BODY.PEEK[]"])[newest][b"BODY[]"]).report
    assert report is not None
    assert report.message_id == "<lost@x>"
    assert [(r.address, r.action, r.status) for r in report.recipients] == [
        ("gone@example.org", "failed", "5.1.1")
    ]


def test_stopped_servers_from_wheels_leave_nothing(tmp_path: Path) -> None:
    mail = WheelsMail(tmp_path, USERS, DOMAINS)
    assert len(mail.processes()) == 1

    mail.stop()

    assert mail.processes() == []
    assert not port_open(mail.imap_host, mail.imap_port)
    assert not port_open(mail.smtp_host, mail.smtp_port)
    mail.stop()


STORY = """
import json, os, smtplib, ssl
from lab.ports import wait_until
from lab.servers import start_mail
mail = start_mail(None, {"a@example.org": "x"}, ["example.org"])
try:
    mail.deliver("a@example.org", b"Subject: one\\r\\n\\r\\n")
    with smtplib.SMTP(mail.smtp_host, mail.smtp_port, timeout=10) as client:
        client.starttls(context=ssl.create_default_context(cafile=str(mail.ca_file)))
        client.login("a@example.org", "x")
        client.sendmail("a@example.org", ["a@example.org"], b"Subject: two\\r\\n\\r\\n")
    wait_until(lambda: len(mail.stored("a@example.org")) == 2, 20, "arrived")
    print(json.dumps({"kind": mail.kind, "uid": os.geteuid(), "processes": mail.processes()}))
finally:
    mail.stop()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody; otherwise we are nobody already")
def test_as_nobody_the_servers_from_wheels_do_the_same() -> None:
    home = Path(tempfile.mkdtemp(prefix="nobody-"))
    home.chmod(0o777)
    here = str(Path(lab.__file__).parent.parent)
    environment = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([here, *(path for path in sys.path if path.endswith("-packages"))]),
    }
    try:
        done = subprocess.run(
            [_python_for_nobody(), "-c", STORY],
            user="nobody",
            group="nogroup",
            extra_groups=[],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["uid"] != 0
        assert "pymap" in told["kind"]
        assert not any(Path(f"/proc/{process}").exists() for process in told["processes"])
        assert list(home.iterdir()) == []
    finally:
        shutil.rmtree(home)


def _python_for_nobody() -> str:
    """Our interpreter, or the system's of the same version where ours lies in a private home."""
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, system):
        with suppress(PermissionError, FileNotFoundError):
            subprocess.run([candidate, "-c", ""], user="nobody", group="nogroup", extra_groups=[], check=True)
            return candidate
    pytest.skip("nobody may run no Python of this version here")
