"""The main job from nothing, checked: ``make demo``.

On the embedded stack with real workers, beat, relay and watcher, and a real mail server: a provider with a
logo and domains, three mailboxes recognised from their addresses, history synced, mail sent between them
and followed as it arrives, a delivered message heard of at once; then every count and hash is held against
the files on the server.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from lab.corpus import generate
from lab.ports import LabError
from lab.servers import Mail, start_mail
from lab.traces import Traces, traces_of

DOMAINS = ("demo.example", "zweite.example", "bücher.example")
ADDRESSES = ("anna@demo.example", "ben@zweite.example", "cleo@demo.example")
HISTORY = 400  # messages a mailbox
SENT = 102  # between the mailboxes, 34 each
BY_COMMAND_LINE = 3
PATIENCE_SECONDS = 120.0
GOODBYE_SECONDS = 5.0

Run = Callable[..., str]


class DemoFailed(Exception):
    """What did not come out as it should."""


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
    passwords = {address: f"demo-{number}-{os.urandom(4).hex()}" for number, address in enumerate(ADDRESSES)}
    mail = start_mail(None, passwords, [d for d in DOMAINS if d.isascii()])
    stack.callback(mail.stop)
    say(f"A mail server of its own: {mail.kind}.")
    delivered = _fill(mail)
    say(f"{delivered} generated messages of mixed shape lie in three mailboxes.")

    home = directory / "home"
    run = _runner(home)
    stack.enter_context(_stack_up(run))
    say("mailwright up: Postgres, Valkey, two workers, beat, relay and watcher run.")

    _add_provider(run, mail, directory)
    for address in ADDRESSES:
        run("mailbox", "add", address, "--password-stdin", given=passwords[address])
    say('The provider "Demo mail" has a logo and three domains; three mailboxes were recognised and tested.')

    clock = time.monotonic()
    run("sync", "--wait")
    say(f"Synced in {time.monotonic() - clock:.1f} s.")
    with psycopg.connect(_database(home)) as database:
        _check_folders(database, mail, "after the first sync")
        say(f"{_stored(database)} messages stored; every hash equals the server's.")

        clock = time.monotonic()
        _send(run, database)
        _wait_for_outbox(database)
        say(f"{SENT} messages sent between the mailboxes in {time.monotonic() - clock:.1f} s.")
        _wait_for_arrival(run, database, mail)
        _check_folders(database, mail, "after sending")
        say("All arrived by sync, and each has its copy in Sent; every hash equals the server's.")
        _push(database, mail)
        _wait_for_relay(database)
    _check_raw(run, mail)
    _account(run)
    return _traces(run, mail)


def say(line: str) -> None:
    """One line of the account."""
    print(f"· {line}", flush=True)


def _runner(home: Path) -> Run:
    program = str(Path(sys.executable).with_name("mailwright"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAILWRIGHT_")}
    environment |= {
        "MAILWRIGHT_HOME": str(home),
        "MAILWRIGHT_POLL_MIN_SECONDS": "1",
        "MAILWRIGHT_POLL_MAX_SECONDS": "2",
    }

    def run(*arguments: str, given: str | None = None) -> str:
        done = subprocess.run(
            [program, *arguments], env=environment, input=given, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DemoFailed(f"mailwright {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    return run


@contextmanager
def _stack_up(run: Run) -> Iterator[None]:
    run("up", "--detach")
    try:
        yield
    finally:
        run("down")


def _database(home: Path) -> str:
    for line in (home / "stack.env").read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "MAILWRIGHT_DATABASE_URL":
            return value.strip("'\"").replace("postgresql+psycopg://", "postgresql://")
    raise DemoFailed("the stack wrote no database address")


def _fill(mail: Mail) -> int:
    messages = generate(HISTORY * len(ADDRESSES), seed=7, mean_size=12_000)
    for number, raw in enumerate(messages):
        mail.deliver(ADDRESSES[number % len(ADDRESSES)], raw, "Archive" if number % 10 == 9 else "INBOX")
    return HISTORY * len(ADDRESSES)


def _add_provider(run: Run, mail: Mail, directory: Path) -> None:
    logo = directory / "logo.png"
    logo.write_bytes(_png())
    domains = [word for domain in DOMAINS for word in ("--domain", domain)]
    run(
        "provider",
        "add",
        "Demo mail",
        *("--imap-host", mail.imap_host, "--imap-port", str(mail.imap_port)),
        *("--imap-security", mail.imap_security),
        *("--smtp-host", mail.smtp_host, "--smtp-port", str(mail.smtp_port)),
        *("--smtp-security", mail.smtp_security, "--smtp-timeout", "40"),
        *("--login", "email", "--logo", str(logo), "--ca", str(mail.ca_file)),
        *domains,
    )


def _png() -> bytes:
    """A small PNG: one blue pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (1).to_bytes(4, "big") * 2 + bytes((8, 2, 0, 0, 0))
    pixel = zlib.compress(bytes((0, 30, 90, 200)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def _send(run: Run, database: psycopg.Connection[Any]) -> None:
    """A few by the command line, the rest by SQL in one transaction."""
    for number in range(SENT):
        sender = ADDRESSES[number % 3]
        recipient = ADDRESSES[(number + 1) % 3]
        subject, body = f"Demo {number}", f"Message {number}, grüße.\n" * (1 + number % 40)
        if number < BY_COMMAND_LINE:
            run("send", "--from", sender, "--to", recipient, "--subject", subject, "--text", body)
            continue
        message: dict[str, Any] = {"to": [recipient], "subject": subject, "text": body}
        if number % 10 == 5:
            message["html"] = f"<p>{body}</p>"
            message["attachments"] = [
                {
                    "name": "zahlen.csv",
                    "content_type": "text/csv",
                    "content": base64.b64encode(b"1;2;3\r\n" * number).decode(),
                }
            ]
        database.execute(
            "SELECT mailwright.enqueue(%s, %s::jsonb, %s)", (sender, json.dumps(message), f"demo-{number}")
        )
    database.commit()


def _wait_until(
    database: psycopg.Connection[Any], query: str, wanted: int, what: str, every: float = 0.2
) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    found = None
    while time.monotonic() < deadline:
        row = database.execute(query).fetchone()
        database.commit()
        found = row[0] if row else None
        if found == wanted:
            return
        time.sleep(every)
    raise DemoFailed(f"{what}: {found} instead of {wanted} after {PATIENCE_SECONDS:.0f} s")


def _wait_for_outbox(database: psycopg.Connection[Any]) -> None:
    sent = "SELECT count(*) FROM mailwright.outbox WHERE state = 'sent'"
    _wait_until(database, sent, SENT, "messages sent")


def _wait_for_arrival(run: Run, database: psycopg.Connection[Any], mail: Mail) -> None:
    """Until the last copy is filed and the last message has come, on the server and in Postgres."""
    pending = "SELECT count(*) FROM mailwright.commands WHERE state <> 'done'"
    _wait_until(database, pending, 0, "copies in Sent still to be filed")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while sum(len(mail.stored(address, "Sent")) for address in ADDRESSES) < SENT:
        if time.monotonic() > deadline:
            raise DemoFailed("the copies in Sent did not appear on the server")
        time.sleep(0.2)
    wanted = HISTORY * len(ADDRESSES) + 2 * SENT
    _wait_until(
        database, "SELECT count(*) FROM mailwright.places WHERE stub IS NULL", wanted, "messages synced"
    )


def _push(database: psycopg.Connection[Any], mail: Mail) -> None:
    """A message put into a mailbox on the server shows as an event, woken by a session in IDLE."""
    watched = "SELECT count(connected_at) FROM mailwright.watches"
    _wait_until(database, watched, len(ADDRESSES), "mailboxes watched")
    waits = "UPDATE mailwright.schedule SET next_poll_at = now() + interval '10 s' WHERE lease_until IS NULL"
    database.execute(waits)  # no poll is to be quicker than the watcher
    database.commit()
    clock = time.monotonic()
    mail.deliver(ADDRESSES[0], next(generate(1, seed=8, mean_size=12_000)))
    wanted = HISTORY * len(ADDRESSES) + 2 * SENT + 1
    _wait_until(
        database,
        "SELECT count(*) FROM mailwright.places WHERE stub IS NULL",
        wanted,
        "messages synced after a push",
        every=0.02,
    )
    took = time.monotonic() - clock
    say(f"A message put into {ADDRESSES[0]} on the server had its event {took:.1f} s later, by push.")


def _wait_for_relay(database: psycopg.Connection[Any]) -> None:
    _wait_until(database, "SELECT count(*) FROM mailwright.events_pending", 0, "events without a position")


def _stored(database: psycopg.Connection[Any]) -> int:
    row = database.execute("SELECT count(*) FROM mailwright.messages WHERE state = 'present'").fetchone()
    return int(row[0]) if row else 0


def _check_folders(database: psycopg.Connection[Any], mail: Mail, when: str) -> None:
    """Hold each folder's multiset of hashes against the files on the server."""
    for address in ADDRESSES:
        for folder in ("INBOX", "Archive", "Sent"):
            rows = database.execute(
                "SELECT r.raw FROM mailwright.places p"
                " JOIN mailwright.folder_epochs e ON e.id = p.epoch_id AND e.state = 'current'"
                " JOIN mailwright.folders f ON f.id = e.folder_id AND f.gone_at IS NULL"
                " JOIN mailwright.mailboxes b ON b.id = p.mailbox_id"
                " JOIN mailwright.raw_messages r ON r.message_id = p.message_id"
                " WHERE b.address = %s AND f.name = %s",
                (address, folder),
            )
            ours = Counter(hashlib.sha256(row[0]).hexdigest() for row in rows)
            theirs = Counter(mail.stored(address, folder))
            if ours != theirs:
                raise DemoFailed(
                    f"{folder} of {address} {when}: {ours.total()} stored, {theirs.total()} on the server, "
                    f"{(theirs - ours).total()} of them not stored, {(ours - theirs).total()} in excess"
                )
    database.commit()


def _check_raw(run: Run, mail: Mail) -> None:
    """The command line gives the same bytes."""
    newest = json.loads(run("--json", "message", "list", ADDRESSES[0], "--limit", "1").splitlines()[0])
    shown = json.loads(run("--json", "message", "show", newest["id"]))
    folder = newest["folders"][0]
    if shown["sha256"] not in mail.stored(ADDRESSES[0], folder):
        raise DemoFailed(f"message {newest['id']} is not what lies in {folder}")


def _account(run: Run) -> None:
    """The events, in numbers and by example."""
    lines = [json.loads(line) for line in run("--json", "event", "list", "--limit", "100000").splitlines()]
    types = Counter(line["type"].removeprefix("mailwright.") for line in lines)
    received = types["message.received"]
    wanted = {"outbound.queued": SENT, "outbound.sent": SENT, "message.filed": SENT}
    for kind, count in wanted.items():
        if types[kind] != count:
            raise DemoFailed(f"{types[kind]} events {kind} instead of {count}")
    if not SENT <= received <= SENT + HISTORY * len(ADDRESSES):
        raise DemoFailed(f"{received} events message.received for {SENT} messages that came")
    say(f"{len(lines)} events, in order, each once:")
    for kind, count in sorted(types.items()):
        print(f"    {count:>6}  {kind}")
    example = next(line for line in reversed(lines) if line["type"].endswith("message.received"))
    facts = example["data"]
    print(f"    such as: {facts['from'][0]} wrote to {facts['folder']}: {facts['subject']!r}")


def _traces(run: Run, mail: Mail) -> Traces:
    """All that runs for the demo now."""
    rows = json.loads(run("--json", "status"))["processes"]
    return traces_of([*mail.processes(), *(row["pid"] for row in rows if row["pid"])])


def _wait_until_gone(traces: Traces) -> None:
    deadline = time.monotonic() + GOODBYE_SECONDS
    while left := traces.left():
        if time.monotonic() > deadline:
            raise DemoFailed(f"still there after the end: {', '.join(left)}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
