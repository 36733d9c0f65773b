"""What the demo shows, scene by scene, on a `Stage` where sync and sending run. Each checks what it says."""

import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from imapclient import IMAPClient

from lab.bells import ring
from lab.stage import EVENTS, DemoFailed, Stage, more, say, together

PROMPT_SECONDS: Final = 1.0
"""From a message's arrival on the server to its event, by push."""
PUSHES: Final = 3
"""Tries; the machine may be busy with something else just then."""

FOLDERS: Final = """
    SELECT array_agg(f.name) FROM mailwright.messages AS m
    JOIN mailwright.places AS p ON p.message_id = m.id
    JOIN mailwright.folder_epochs AS e ON e.id = p.epoch_id
    JOIN mailwright.folders AS f ON f.id = e.folder_id WHERE m.uid = %s
"""
"""Where a message lies."""

DOUBT: Final = """
    SELECT format('%%s  %%s: %%s', o.subject, o.state, string_agg(coalesce(a.evidence, a.reply), ', then '))
    FROM mailwright.outbox AS o JOIN mailwright.attempts AS a ON a.outbound_id = o.id
    WHERE o.uid = %s GROUP BY o.id
"""
"""A message, what became of it, and why."""

Message = Mapping[str, Any]


def by_command_line(stage: Stage, sender: str, message: Message, key: str) -> None:
    """As a person does it."""
    (recipient,) = message["to"]
    words = ("--to", recipient, "--subject", message["subject"], "--text", message["text"])
    stage.run("send", "--from", sender, *words, "--idempotency-key", key)


def by_sql(stage: Stage, sender: str, message: Message, key: str) -> None:
    """Within a transaction of one's own."""
    stage.value("SELECT mailwright.enqueue(%s, %s::jsonb, %s)", (sender, json.dumps(message), key))


def by_celery(stage: Stage, sender: str, message: Message, key: str) -> None:
    """From any app on the broker, which knows nothing of ours but a name."""
    ring(stage.broker, "mailwright.enqueue", "enqueue", sender, message, key)


def by_http(stage: Stage, sender: str, message: Message, key: str) -> None:
    """From anywhere, with a key to the API."""
    answer = stage.http.enqueue(sender, message, key)
    if answer.status != 201:
        raise DemoFailed(f"HTTP: {answer.status} {answer.said}")


Door = Callable[[Stage, str, Message, str], None]
DOORS: Final[Mapping[str, Door]] = {
    "command line": by_command_line,
    "SQL": by_sql,
    "Celery task": by_celery,
    "HTTP": by_http,
}
"""Each puts one message with an idempotency key into a mailbox's queue."""


def one_by_each_door(stage: Stage, sender: str, recipient: str) -> None:
    """The same message by every door: committed in one queue, and sent."""
    say(f"One message by each door, from {sender} to {recipient}:")
    for name, door in DOORS.items():
        clock = time.monotonic()
        message = {"to": [recipient], "subject": f"By {name}", "text": "One queue, whatever the door.\n"}
        door(stage, sender, message, f"demo by {name}")
        stage.wait(
            "SELECT o.state FROM mailwright.outbox AS o"
            " JOIN mailwright.idempotency_keys AS k ON k.outbound_uid = o.uid WHERE k.key = %s",
            "sent",
            f"the message by {name}",
            (f"demo by {name}",),
            every=0.02,
        )
        more(f"{name:<12}  sent {time.monotonic() - clock:.1f} s after it was begun")


def pushed(stage: Stage, address: str, mailboxes: int) -> tuple[str, str, int]:
    """A message put into a mailbox on the server shows as an event within a second, woken by a session in
    IDLE. Returns its Message-ID, its id, and how many it took."""
    watched = "SELECT count(connected_at) FROM mailwright.watches"
    stage.wait(watched, mailboxes, "mailboxes watched")
    for number in range(1, PUSHES + 1):
        # No poll is to be quicker than the watcher.
        stage.database.execute(
            "UPDATE mailwright.schedule SET next_poll_at = now() + interval '10 s' WHERE lease_until IS NULL"
        )
        stage.database.commit()
        head = f"From: Max <max@far.example>\r\nTo: {address}\r\nSubject: Did you hear?\r\n"
        message_id = f"<push-{number}@far.example>"
        clock = time.monotonic()
        stage.mail.deliver(address, f"{head}Message-ID: {message_id}\r\n\r\nNews.\r\n".encode())
        uid = stage.wait_for(
            f"SELECT subject FROM {EVENTS} WHERE type = 'message.received' AND data ->> 'message_id' = %s",
            "the event of a message put into a mailbox",
            (message_id,),
            every=0.02,
        )
        took = time.monotonic() - clock
        if took < PROMPT_SECONDS:
            say(f"A message put into {address} on the server had its event {took:.1f} s later, by push.")
            return message_id, uid, number
    raise DemoFailed(f"{PUSHES} messages had their events later than {PROMPT_SECONDS:g} s after they came")


def moved(stage: Stage, address: str, message_id: str, uid: str) -> None:
    """A mail program moves a message on the server; here it stays one message, with a new place."""
    with mail_program(stage, address) as program:
        program.select_folder("INBOX")
        found = program.search(["HEADER", "Message-ID", message_id])
        program.move(found, "Archive")
    stage.wait_for_event("message.moved", uid)
    told = types_of(stage, uid)
    folders = stage.value(FOLDERS, (uid,))
    if folders != ["Archive"]:
        raise DemoFailed(f"a message moved to Archive lies in {folders}")
    if told != ["message.received", "message.moved"]:
        raise DemoFailed(f"a message that was moved is told of as {', '.join(told)}")
    say("A mail program moved it to Archive on the server: still one message, with one event message.moved.")


def bounced(stage: Stage, sender: str, recipient: str, gone: str) -> None:
    """A server takes a message for two, and returns it for one."""
    stage.mail.add_gone(gone)
    message = {"to": [recipient, gone], "subject": "Are you there?", "text": "I wonder.\n"}
    uid = put(stage, sender, message)
    stage.wait(
        "SELECT count(*) FROM mailwright.reports AS r"
        " JOIN mailwright.attempts AS a ON a.uid::text = r.attempt"
        " JOIN mailwright.outbox AS o ON o.id = a.outbound_id WHERE o.uid = %s",
        1,
        "bounces that name the attempt",
        (uid,),
    )
    ring(stage.broker, "mailwright.housekeeping.due", "housekeeping")  # beat does so every 30 s
    stage.wait_for_event("outbound.bounced", uid)
    shown, told = together(
        lambda: stage.tell("outbox", "show", uid), lambda: stage.run("--json", "suppression", "list")
    )
    recipients = {each["address"]: each for each in shown["recipients"]}
    if [recipients[address]["state"] for address in (recipient, gone)] != ["sent", "bounced"]:
        raise DemoFailed(f"a bounce for {gone} left {recipients}")
    say("A bounce came back to the sender; it found its message, and the recipient it is about:")
    for address, each in recipients.items():
        more(f"{address}: {each['state']}" + (f", {each['reply']}" if address == gone else ""))
    suppressed = [line["address"] for line in lines(told)]
    if suppressed != [gone]:
        raise DemoFailed(f"suppressed after one bounce: {suppressed}")


def doubted(stage: Stage, sender: str, recipient: str) -> None:
    """A server takes a message, and hangs up instead of saying so; its provider files what it sends."""
    uid = put(stage, sender, {"to": [recipient], "subject": "Well?", "text": "Did it get through?\n"})
    stage.wait_for_event("outbound.uncertain", uid)
    say("A server took a message and hung up before it said so. Nobody knows, so nothing is sent twice:")
    show(stage, uid, "uncertain")
    (taken,) = stage.shaky.accepted()
    stage.mail.deliver(sender, stage.shaky.message(taken.sha256), "Sent")
    stage.wait_for_event("outbound.sent", uid)
    say("Its provider files sent mail itself; the copy of that very attempt came by sync and settles it:")
    show(stage, uid, "sent")
    if len(stage.shaky.accepted()) != 1:
        raise DemoFailed("a message whose fate was uncertain was sent twice")


def show(stage: Stage, uid: str, state: str) -> None:
    """A message in doubt and what is known of its one attempt, in a line; it must be in that state."""
    line = stage.value(DOUBT, (uid,))
    if f" {state}: " not in line:
        raise DemoFailed(f"message {uid} is not {state}, but {line}")
    more(line)


def put(stage: Stage, sender: str, message: Message) -> str:
    """Put a message into the queue by SQL; its id."""
    given = (sender, json.dumps(message))
    return str(stage.value("SELECT mailwright.enqueue(%s, %s::jsonb)", given))


def types_of(stage: Stage, uid: str) -> list[str]:
    """The types of the events about one thing, in order; waits for the relay."""
    pending = "SELECT count(*) FROM mailwright.events_pending"
    stage.wait(pending, 0, "events without a position", every=0.05)
    told = "SELECT array_agg(type ORDER BY position) FROM mailwright.events WHERE subject = %s"
    return list(stage.value(told, (uid,)))


def lines(text: str) -> list[Any]:
    """JSON, a line each."""
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def mail_program(stage: Stage, address: str) -> Iterator[Any]:
    """What a person has open beside us; IMAPClient has no types of its own."""
    context = ssl.create_default_context(cafile=str(Path(stage.mail.ca_file)))
    program: Any = IMAPClient(stage.mail.imap_host, stage.mail.imap_port, ssl_context=context, timeout=30)
    try:
        program.login(address, stage.passwords[address])
        yield program
    finally:
        program.logout()
