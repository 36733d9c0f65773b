"""The main job from nothing, checked: ``make demo``.

On the embedded stack with real workers, beat, relay and watcher, and a real mail server: a provider with a
logo and domains, three mailboxes recognised from their addresses, history synced, mail put in by every door,
sent between them and followed as it arrives; then what happens to mail (`lab.scenes`): news heard of at once,
a message moved on the server, a bounce, an answer that was lost. At the end every count and hash is held
against the files on the server.
"""

import base64
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg

from lab import scenes
from lab.corpus import generate
from lab.http_door import HttpDoor
from lab.ports import LabError, free_port
from lab.servers import Mail, start_mail
from lab.servers.recording import Behaviour, RecordingSmtp
from lab.stage import (
    PATIENCE_SECONDS,
    DemoFailed,
    Run,
    Stage,
    address_of,
    more,
    runner,
    say,
    stack_up,
    together,
)
from lab.traces import Traces, traces_of

DOMAINS: Final = ("demo.example", "zweite.example", "bücher.example")
ADDRESSES: Final = ("anna@demo.example", "ben@zweite.example", "cleo@demo.example")
DORA: Final = "dora@shaky.example"
"""Whose provider has an SMTP server that hangs up."""
GONE: Final = "gone@demo.example"
"""For whom the server takes mail, and returns it."""
HISTORY: Final = 400
"""Messages in each of the three mailboxes."""
BULK: Final = 99
"""Messages between them, by SQL, 33 from each."""
GOODBYE_SECONDS: Final = 5.0


def main() -> int:
    """Run the demo. 0 when every check held, 1 with the reason otherwise."""
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            traces = _demo(stack)
        _wait_until_gone(traces)
    except (DemoFailed, LabError, psycopg.Error) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    print(f"\nAll of it holds. Nothing is left running. {time.monotonic() - began:.0f} s.")
    return 0


def _demo(stack: ExitStack) -> Traces:
    """The whole round. Returns what ran for it, which must be gone once ``stack`` is closed."""
    directory = Path(tempfile.mkdtemp(prefix="mailwright-demo-"))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    people = (*ADDRESSES, DORA)
    passwords = {address: f"demo-{number}-{os.urandom(4).hex()}" for number, address in enumerate(people)}
    home = directory / "home"
    http_port = free_port()
    run = runner(home, http_port)
    servers, ours = (stack.enter_context(ExitStack()) for _ in range(2))  # ours stops first
    mail, _ = together(lambda: _mail_server(servers, passwords), lambda: ours.enter_context(stack_up(run)))
    delivered = HISTORY * len(ADDRESSES)
    say(f"A mail server of its own: {mail.kind}.")
    say(f"{delivered} generated messages of mixed shape lie in three mailboxes.")
    say("mailwright up: Postgres, Valkey, two workers, beat, relay, watcher and HTTP run.")

    shaky = servers.enter_context(RecordingSmtp(Behaviour(hang_up_after_dot=1.0), keep=True))
    together(lambda: _add_provider(run, mail, directory), lambda: _add_shaky_provider(run, mail, shaky))
    together(*(partial(_add_mailbox, run, address, passwords[address]) for address in people))
    say('The provider "Demo mail" has a logo and three domains; three mailboxes were recognised and tested.')

    clock = time.monotonic()
    key, _ = together(
        lambda: run("--json", "key", "add", "administrator", "--scope", "outbox:write"),
        lambda: run("sync", "--wait"),
    )
    say(f"Synced in {time.monotonic() - clock:.1f} s.")
    url = address_of(home, "MAILWRIGHT_DATABASE_URL").replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url) as database:
        broker = address_of(home, "MAILWRIGHT_BROKER_URL")
        door = HttpDoor(http_port, json.loads(key)["key"])
        stack.callback(door.close)
        stage = Stage(run, database, broker, door, mail, passwords, shaky)
        _check_folders(stage, "after the first sync")
        say(f"{delivered} messages stored; every hash equals the server's.")
        _send(stage)
        pushes = _scenes(stage)
        _check_events(stage, pushes)
        newest = stage.value("SELECT uid FROM mailwright.messages ORDER BY id DESC LIMIT 1")
        shown, told, status = together(
            lambda: stage.tell("message", "show", str(newest)),
            lambda: run("--json", "event", "list", "--limit", "100000"),
            lambda: stage.tell("status"),
        )
        _check_folders(stage, "at the end")
        _check_shown(stage, shown)
        say("At the end every message's hash equals the server's, in every folder of every mailbox.")
        _account(scenes.lines(told))
    return _traces(status, mail)


def _mail_server(servers: ExitStack, passwords: Mapping[str, str]) -> Mail:
    """Started, until ``servers`` are stopped, with generated mail in each of the three mailboxes."""
    mail = start_mail(None, passwords, [d for d in DOMAINS if d.isascii()])
    servers.callback(mail.stop)
    messages = generate(HISTORY * len(ADDRESSES), seed=7, mean_size=12_000)
    for number, raw in enumerate(messages):
        mail.deliver(ADDRESSES[number % len(ADDRESSES)], raw, "Archive" if number % 10 == 9 else "INBOX")
    return mail


def _add_provider(run: Run, mail: Mail, directory: Path) -> None:
    logo = directory / "logo.png"
    logo.write_bytes(_png())
    domains = [word for domain in DOMAINS for word in ("--domain", domain)]
    run(
        *("provider", "add", "Demo mail"),
        *_imap(mail),
        *("--smtp-host", mail.smtp_host, "--smtp-port", str(mail.smtp_port)),
        *("--smtp-security", mail.smtp_security, "--smtp-timeout", "40"),
        *("--login", "email", "--logo", str(logo)),
        *domains,
    )


def _add_shaky_provider(run: Run, mail: Mail, smtp: RecordingSmtp) -> None:
    run(
        *("provider", "add", "Shaky mail", "--domain", DORA.rpartition("@")[2], "--sent-copy", "server"),
        *_imap(mail),
        *("--smtp-host", smtp.host, "--smtp-port", str(smtp.port), "--smtp-security", "none"),
    )


def _imap(mail: Mail) -> tuple[str, ...]:
    return (
        *("--imap-host", mail.imap_host, "--imap-port", str(mail.imap_port)),
        *("--imap-security", mail.imap_security, "--ca", str(mail.ca_file)),
    )


def _add_mailbox(run: Run, address: str, password: str) -> None:
    run("mailbox", "add", address, "--password-stdin", given=password)


def _png() -> bytes:
    """A small PNG: one blue pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (1).to_bytes(4, "big") * 2 + bytes((8, 2, 0, 0, 0))
    pixel = zlib.compress(bytes((0, 30, 90, 200)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def _send(stage: Stage) -> None:
    """One message by each door, then many by SQL in one transaction; wait until all have arrived."""
    scenes.one_by_each_door(stage, ADDRESSES[0], ADDRESSES[1])
    clock = time.monotonic()
    for number in range(BULK):
        message = _message(number, ADDRESSES[(number + 1) % 3])
        stage.database.execute(
            "SELECT mailwright.enqueue(%s, %s::jsonb, %s)",
            (ADDRESSES[number % 3], json.dumps(message), f"demo-{number}"),
        )
    stage.database.commit()
    sent = BULK + len(scenes.DOORS)
    stage.wait("SELECT count(*) FROM mailwright.outbox WHERE state = 'sent'", sent, "messages sent")
    say(f"{BULK} more, put in by SQL in one transaction, were sent in {time.monotonic() - clock:.1f} s.")
    _wait_for_arrival(stage, sent)
    _check_folders(stage, "after sending")
    say("All arrived by sync, and each has its copy in Sent; every hash equals the server's.")


def _message(number: int, recipient: str) -> dict[str, Any]:
    body = f"Message {number}, grüße.\n" * (1 + number % 40)
    message: dict[str, Any] = {"to": [recipient], "subject": f"Demo {number}", "text": body}
    if number % 10 == 5:
        numbers = base64.b64encode(b"1;2;3\r\n" * number).decode()
        message["html"] = f"<p>{body}</p>"
        message["attachments"] = [{"name": "zahlen.csv", "content_type": "text/csv", "content": numbers}]
    return message


def _wait_for_arrival(stage: Stage, sent: int) -> None:
    """Until the last copy is filed and the last message has come, on the server and in Postgres."""
    pending = "SELECT count(*) FROM mailwright.commands WHERE state <> 'done'"
    stage.wait(pending, 0, "copies in Sent still to be filed")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while sum(len(stage.mail.stored(address, "Sent")) for address in ADDRESSES) < sent:
        if time.monotonic() > deadline:
            raise DemoFailed("the copies in Sent did not appear on the server")
        time.sleep(0.2)
    wanted = HISTORY * len(ADDRESSES) + 2 * sent
    stage.wait("SELECT count(*) FROM mailwright.places WHERE stub IS NULL", wanted, "messages synced")


def _scenes(stage: Stage) -> int:
    """What happens to mail. Returns how many messages were put into a mailbox to be heard of."""
    anna, ben, _ = ADDRESSES
    message_id, uid, pushes = scenes.pushed(stage, anna, len(stage.passwords))
    scenes.moved(stage, anna, message_id, uid)
    scenes.bounced(stage, anna, ben, GONE)
    scenes.doubted(stage, DORA, ben)
    return pushes


def _check_events(stage: Stage, pushes: int) -> None:
    """Wait for the last facts, and count what was told."""
    bulk = BULK + len(scenes.DOORS)
    sent = bulk + 2  # the one that bounced, and the one in doubt
    came = bulk + pushes + 2  # the one that bounced, for its other recipient; the bounce
    wanted = {
        "outbound.queued": sent,
        "outbound.sent": sent,
        "outbound.uncertain": 1,
        "outbound.bounced": 1,
        "message.filed": sent,
        "message.received": came,
        "message.moved": 1,
    }
    for kind, count in wanted.items():
        told = "SELECT count(*) FROM mailwright.events WHERE type = %s"
        stage.wait(told, count, f"events {kind}", (kind,))
    stage.wait("SELECT count(*) FROM mailwright.events_pending", 0, "events without a position")


def _check_folders(stage: Stage, when: str) -> None:
    """Hold each folder's multiset of hashes against the files on the server."""
    for address in stage.passwords:
        for folder in ("INBOX", "Archive", "Sent"):
            rows = stage.database.execute(
                "SELECT r.raw FROM mailwright.places p"
                " JOIN mailwright.folder_epochs e ON e.id = p.epoch_id AND e.state = 'current'"
                " JOIN mailwright.folders f ON f.id = e.folder_id AND f.gone_at IS NULL"
                " JOIN mailwright.mailboxes b ON b.id = p.mailbox_id"
                " JOIN mailwright.raw_messages r ON r.message_id = p.message_id"
                " WHERE b.address = %s AND f.name = %s",
                (address, folder),
            )
            ours = Counter(hashlib.sha256(row[0]).hexdigest() for row in rows)
            theirs = Counter(stage.mail.stored(address, folder))
            if ours != theirs:
                raise DemoFailed(
                    f"{folder} of {address} {when}: {ours.total()} stored, {theirs.total()} on the server, "
                    f"{(theirs - ours).total()} of them not stored, {(ours - theirs).total()} in excess"
                )
    stage.database.commit()


def _check_shown(stage: Stage, message: Mapping[str, Any]) -> None:
    """The command line tells of the same bytes."""
    folder = message["places"][0]["folder"]
    if message["sha256"] not in stage.mail.stored(message["mailbox"], folder):
        raise DemoFailed(f"message {message['id']} is not what lies in {folder}")


def _account(told: list[Any]) -> None:
    """The events, in numbers and by example."""
    types = Counter(line["type"].removeprefix("mailwright.") for line in told)
    say(f"{len(told)} events, in order, each once:")
    for kind, count in sorted(types.items()):
        more(f"{count:>6}  {kind}")
    example = next(line for line in reversed(told) if line["type"].endswith("message.received"))
    facts = example["data"]
    more(f"such as: {facts['from'][0]} wrote to {facts['folder']}: {facts['subject']!r}")


def _traces(status: Mapping[str, Any], mail: Mail) -> Traces:
    """All that runs for the demo now."""
    return traces_of([*mail.processes(), *(row["pid"] for row in status["processes"] if row["pid"])])


def _wait_until_gone(traces: Traces) -> None:
    deadline = time.monotonic() + GOODBYE_SECONDS
    while left := traces.left():
        if time.monotonic() > deadline:
            raise DemoFailed(f"still there after the end: {', '.join(left)}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
