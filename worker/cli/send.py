"""``mailwright send``: put a message into the queue."""

import base64
import json
import mimetypes
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import click
from sqlalchemy.orm import Session

from config.errors import UserError
from tasks import outbound
from tasks.outbound.values import MOST_BYTES
from tasks.sync import reading
from worker.cli.context import Cli, pass_cli, plain

POLL_SECONDS = 0.1

VARIABLES = click.option(
    "--variable",
    "variables",
    multiple=True,
    metavar="NAME=TEXT",
    help="A variable of the template (repeatable).",
)


@click.command()
@click.option("--from", "sender", required=True, metavar="ADDRESS", help="The mailbox that sends.")
@click.option("--as-address", metavar="ADDRESS", help="Send as this other address, which it may send as.")
@click.option("--to", multiple=True, metavar="ADDRESS", help="A recipient (repeatable).")
@click.option("--cc", multiple=True, metavar="ADDRESS", help="Gets a copy (repeatable).")
@click.option("--bcc", multiple=True, metavar="ADDRESS", help="Gets a copy nobody sees (repeatable).")
@click.option("--reply-to", multiple=True, metavar="ADDRESS", help="Where answers go (repeatable).")
@click.option("--subject", default="", help="The subject.")
@click.option("--text", help="The text.")
@click.option("--text-file", metavar="FILE", help="A file with the text in UTF-8; - is standard input.")
@click.option("--html", metavar="FILE", help="A file with the HTML in UTF-8.")
@click.option("--attach", multiple=True, metavar="FILE", help="A file to attach (repeatable).")
@click.option(
    "--inline",
    "inlines",
    multiple=True,
    metavar="[CID=]FILE",
    help="An image that the HTML shows by cid:CID, by default cid: and the file's name (repeatable).",
)
@click.option(
    "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A further header (repeatable)."
)
@click.option("--in-reply-to", metavar="ID", help="The Message-ID that this answers.")
@click.option(
    "--reply-to-message",
    type=click.UUID,
    metavar="ID",
    help="The id of a stored message that this answers; without --to and --subject, they are taken from it.",
)
@click.option("--template", metavar="NAME", help="A template, which writes subject, text and HTML.")
@VARIABLES
@click.option(
    "--variables-file", type=click.Path(path_type=Path), metavar="FILE", help="JSON with variables."
)
@click.option("--raw", metavar="FILE", help="A whole message (RFC 5322) instead; - is standard input.")
@click.option("--idempotency-key", metavar="K", help="The same key never sends twice.")
@click.option("--priority", type=int, default=0, show_default=True, help="-100 to 100; higher goes first.")
@click.option("--not-before", metavar="TIME", help="Send it at this time (ISO 8601).")
@click.option("--expires-at", metavar="TIME", help="Give up at this time; default after 5 days.")
@click.option("--wait", is_flag=True, help="Wait for the outcome; exits with 1 unless all got it.")
@click.option("--timeout", type=float, default=300.0, show_default=True, help="Longest wait, in seconds.")
@pass_cli
def send(
    cli: Cli,
    /,
    sender: str,
    as_address: str | None,
    text: str | None,
    text_file: str | None,
    html: str | None,
    attach: tuple[str, ...],
    inlines: tuple[str, ...],
    headers: tuple[str, ...],
    reply_to_message: UUID | None,
    variables: tuple[str, ...],
    variables_file: Path | None,
    raw: str | None,
    idempotency_key: str | None,
    wait: bool,
    timeout: float,
    **fields: Any,
) -> None:
    """Put a message into the queue of a mailbox."""
    if text is not None and text_file is not None:
        raise click.UsageError("give the text by --text or by --text-file, not by both.")
    message = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    message |= {
        "from": as_address,
        "text": read_text(text_file) if text_file is not None else text,
        "html": read_text(html) if html is not None else None,
        "attachments": [attachment(Path(name)) for name in attach] + [inline(each) for each in inlines],
        "headers": [header(line) for line in headers],
        "raw": base64.b64encode(read_bytes(raw)).decode() if raw is not None else None,
        "variables": variables_of(variables, variables_file) or None,
        "reply_to_message": str(reply_to_message) if reply_to_message is not None else None,
    }
    message = {name: value for name, value in message.items() if value not in (None, [], 0, "")}
    with cli.db.begin() as session:
        if reply_to_message is not None:
            message = answering(cli, session, reply_to_message, message)
        accepted = outbound.enqueue(cli.actor, session, sender, message, idempotency_key)
    if not wait:
        words = "known already, by its idempotency key" if accepted.duplicate else "queued"
        cli.say(f"{words}: {accepted.uid}", id=accepted.uid, duplicate=accepted.duplicate)
        return
    shown = wait_for(cli, accepted.uid, timeout)
    cli.say(
        told(shown),
        id=accepted.uid,
        duplicate=accepted.duplicate,
        state=shown["state"],
        recipients=shown["recipients"],
        last_reply=shown["last_reply"],
    )
    if outbound.undelivered(shown):
        sys.exit(1)


def answering(cli: Cli, session: Session, original: UUID, message: dict[str, Any]) -> dict[str, Any]:
    """The message, to whom the original asks to be answered and with its subject, where it says neither."""
    addressed = any(name in message for name in ("to", "cc", "bcc"))
    if addressed and ("subject" in message or "template" in message):
        return message
    shown = reading.show_message(session, cli.actor, original)
    people = shown["addresses"].get("reply_to") or shown["addresses"].get("from") or []
    to = [person["address"] for person in people if person.get("address")]
    subject = shown["subject"] or ""
    if not subject.lower().startswith("re:"):
        subject = f"Re: {subject}".rstrip()
    found: dict[str, Any] = {} if addressed else {"to": to}
    if "subject" not in message and "template" not in message:
        found["subject"] = subject
    return {**found, **message}


def wait_for(cli: Cli, uid: UUID, timeout: float) -> dict[str, Any]:
    """Wait until nothing more happens to a message by itself. Raises `UserError` when that takes longer."""
    deadline = time.monotonic() + timeout
    while True:
        with cli.db.begin() as session:
            shown = outbound.show(cli.actor, session, uid)
        if shown["state"] in outbound.FINAL or shown["state"] == "uncertain":
            return shown
        if time.monotonic() > deadline:
            why = shown["waits_for"] or shown["last_reply"] or "is a worker running?"
            raise UserError(
                f"the message is still {shown['state']} after {timeout:g} s: {plain(why)}\n"
                f"It stays in the queue: mailwright outbox show {uid}"
            )
        time.sleep(POLL_SECONDS)


def told(shown: dict[str, Any]) -> str:
    """One line on how a message ended, and one for each recipient who did not get it."""
    lines = [f"{shown['state']}: {shown['id']}"]
    if not shown["recipients"] and shown["last_reply"]:
        lines.append(plain(shown["last_reply"]))
    lines += [
        f"{plain(r['address'])}: {r['state']}, {plain(r['reply'] or shown['last_reply'])}"
        for r in shown["recipients"]
        if r["state"] != "sent"
    ]
    return "\n".join(lines)


def read_text(name: str) -> str:
    """A file's text, or that of standard input for ``-``. Raises `UserError`."""
    content = read_bytes(name)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{name} is not UTF-8 text. Convert it, or attach it: --attach {name}") from None


def read_bytes(name: str) -> bytes:
    """A file's bytes, or those of standard input for ``-``. Raises `UserError`."""
    return sys.stdin.buffer.read(MOST_BYTES + 1) if name == "-" else read_file(Path(name))


def read_file(path: Path) -> bytes:
    """A file's bytes, bounded. Raises `UserError`."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Check its name.") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} is larger than {MOST_BYTES} bytes. Send a link to it instead.")
    return content


def attachment(path: Path) -> dict[str, Any]:
    """A file as the JSON of a message has it; its type is guessed from its name."""
    kind, encoding = mimetypes.guess_type(path.name)
    plain_type = kind is not None and encoding is None and not kind.startswith(("message/", "multipart/"))
    return {
        "name": path.name,
        "content_type": kind if plain_type else "application/octet-stream",
        "content": base64.b64encode(read_file(path)).decode(),
    }


def inline(given: str) -> dict[str, Any]:
    """``CID=FILE`` or ``FILE`` as an image that the HTML shows."""
    content_id, equals, name = given.partition("=")
    if not equals:
        content_id, name = Path(given).name, given
    return {**attachment(Path(name)), "content_id": content_id, "inline": True}


def variables_of(pairs: tuple[str, ...], file: Path | None) -> dict[str, Any]:
    """The variables of a file and, over them, those given one by one. Raises `UserError`."""
    found: dict[str, Any] = {}
    if file is not None:
        try:
            found = json.loads(read_text(str(file)))
        except (ValueError, RecursionError):
            found = []  # type: ignore[assignment]
        if not isinstance(found, dict):
            raise UserError(f"{file} must hold one JSON object: names and values of variables.")
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--variable wants NAME=TEXT, not {pair!r}.")
        found[name] = value
    return found


def header(line: str) -> list[str]:
    """``Name: value`` as a pair. Raises a usage error."""
    name, colon, value = line.partition(":")
    if not colon:
        raise click.UsageError(f"--header wants 'NAME: VALUE', not {line!r}.")
    return [name.strip(), value.strip(" \t")]
