"""``mailwright message``: list, show and export what is stored, and change it on the server."""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from config.errors import NotFound, UserError
from schema.tables.sync import CommandState
from tasks.sync import reading
from tasks.sync.commands import wishes
from tasks.sync.commands.wishes import Queued
from tasks.sync.search import Sought, search_messages
from worker.cli.context import MOMENT, Cli, pass_cli

POLL_SECONDS = 0.2


@click.group()
def message() -> None:
    """List, show, export and change messages."""


@message.command("list")
@click.argument("address")
@click.option("--folder", help="Only this folder.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@pass_cli
def list_(cli: Cli, address: str, folder: str | None, limit: int) -> None:
    """List a mailbox's newest messages."""
    with cli.db.begin() as session:
        rows = reading.list_messages(session, cli.actor, address, folder=folder, limit=limit)
    cli.table(
        [
            {
                "id": row.uid,
                "received": row.internal_at,
                "from": row.sender,
                "subject": row.subject,
                "size": row.size,
                "folders": row.folders or [],
                "flags": row.flags,
                "flags_as_of": row.flags_as_of,
                "thread": row.thread_id,
            }
            for row in rows
        ],
        ["id", "received", "from", "subject", "size", "folders"],
        f"{address} has no messages stored yet.",
    )


@message.command()
@click.argument("words", nargs=-1)
@click.option("--mailbox", "address", metavar="ADDRESS", help="Only this mailbox; default all you may read.")
@click.option("--from", "sender", metavar="WORDS", help="Words of the sender's name or address.")
@click.option("--to", "recipient", metavar="WORDS", help="Words of a recipient's name or address.")
@click.option("--subject", metavar="WORDS", help="Words of the subject.")
@click.option("--since", type=MOMENT, metavar="T", help="Only what arrived then or later.")
@click.option("--before", type=MOMENT, metavar="T", help="Only what arrived before that.")
@click.option("--folder", help="Only this folder.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@pass_cli
def search(
    cli: Cli,
    words: tuple[str, ...],
    address: str | None,
    sender: str | None,
    recipient: str | None,
    subject: str | None,
    since: datetime | None,
    before: datetime | None,
    folder: str | None,
    limit: int,
) -> None:
    """Find messages by all these words, newest first.

    Also '"a phrase"', 'begin*', 'this or that', and after --, '-without'.
    """
    sought = Sought(" ".join(words), sender, recipient, subject, _moment(since), _moment(before), folder)
    with cli.db.begin() as session:
        rows = search_messages(session, cli.actor, sought, address=address, limit=limit)
    cli.table(
        [
            {
                "id": row.uid,
                "mailbox": row.mailbox,
                "received": row.internal_at,
                "from": row.sender,
                "subject": row.subject,
                "size": row.size,
                "folders": row.folders or [],
                "flags": row.flags,
                "thread": row.thread_id,
            }
            for row in rows
        ],
        ["id", "mailbox", "received", "from", "subject", "folders"],
        "nothing was found. What has just arrived is found a few seconds later.",
    )


def _moment(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@message.command()
@click.argument("id", type=click.UUID)
@click.option("--html", is_flag=True, help="Print its HTML alone, cleaned: nothing in it runs or is fetched.")
@pass_cli
def show(cli: Cli, id: UUID, html: bool) -> None:
    """Show one message: headers, places, attachments, text."""
    with cli.db.begin() as session:
        found = reading.show_message(session, cli.actor, id)
    if html and not found["html"]:
        raise NotFound(f"message {id} has no HTML. See `mailwright message show {id}`.")
    if html and not cli.as_json:
        click.echo(_printable(found["html"]))
        return
    if cli.as_json:
        cli.show(found)
        return
    body = found.pop("text")
    found.pop("html")
    cli.show(found)
    if body:
        click.echo()
        click.echo(_printable(body))


def _printable(written: str) -> str:
    """What strangers wrote, with nothing in it that a terminal obeys."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in written)


@message.command()
@click.argument("id", type=click.UUID)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file; default standard output."
)
@pass_cli
def raw(cli: Cli, id: UUID, output: Path | None) -> None:
    """Write a message's bytes as they were fetched."""
    with cli.db.begin() as session:
        data = reading.raw_message(session, cli.actor, id)
    if output is None:
        sys.stdout.buffer.write(data)
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error.strerror}.") from None
    cli.say(f"wrote {len(data)} bytes to {output}", bytes=len(data), file=str(output))


def _waiting(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that changes something."""
    wait = click.option("--wait", is_flag=True, help="Wait until the server has done it.")
    timeout = click.option(
        "--timeout", type=float, default=60.0, show_default=True, help="Longest wait, in seconds."
    )
    return wait(timeout(command))


IDS = click.argument("ids", nargs=-1, required=True, type=click.UUID, metavar="ID…")


@message.command()
@IDS
@click.option("--read/--unread", default=None, help="Whether it was read.")
@click.option("--flagged/--unflagged", default=None, help="Whether it is flagged, or starred.")
@click.option("--answered/--unanswered", default=None, help="Whether it was answered.")
@_waiting
@pass_cli
def mark(
    cli: Cli,
    ids: tuple[UUID, ...],
    read: bool | None,
    flagged: bool | None,
    answered: bool | None,
    wait: bool,
    timeout: float,
) -> None:
    """Mark messages as read, flagged or answered, or not."""
    marks = list(zip(wishes.MARKS, (read, flagged, answered), strict=True))
    add = [flag for flag, wanted in marks if wanted is True]
    remove = [flag for flag, wanted in marks if wanted is False]
    if not (add or remove):
        raise click.UsageError("say how to mark it: --read, --unread, --flagged, --answered …")
    with cli.db.begin() as session:
        queued = wishes.mark(session, cli.actor, ids, add=add, remove=remove)
    _tell(cli, queued, wait, timeout)


@message.command()
@IDS
@click.argument("folder")
@click.option("--from", "source", help="The folder to move it out of, where it lies in several.")
@_waiting
@pass_cli
def move(
    cli: Cli, ids: tuple[UUID, ...], folder: str, source: str | None, wait: bool, timeout: float
) -> None:
    """Move messages to a folder."""
    with cli.db.begin() as session:
        queued = wishes.move(session, cli.actor, ids, folder, source)
    _tell(cli, queued, wait, timeout)


@message.command()
@IDS
@click.argument("folder")
@_waiting
@pass_cli
def copy(cli: Cli, ids: tuple[UUID, ...], folder: str, wait: bool, timeout: float) -> None:
    """Copy messages to a folder."""
    with cli.db.begin() as session:
        queued = wishes.copy(session, cli.actor, ids, folder)
    _tell(cli, queued, wait, timeout)


@message.command()
@IDS
@click.option("--permanently", is_flag=True, help="Remove it for good instead of moving it to Trash.")
@click.option("--from", "source", help="The folder to delete it from, where it lies in several.")
@_waiting
@pass_cli
def delete(
    cli: Cli, ids: tuple[UUID, ...], permanently: bool, source: str | None, wait: bool, timeout: float
) -> None:
    """Move messages to Trash, or remove them for good."""
    with cli.db.begin() as session:
        queued = wishes.delete(session, cli.actor, ids, permanently=permanently, source=source)
    _tell(cli, queued, wait, timeout)


@message.command()
@click.argument("address")
@click.argument("folder")
@click.argument("file", type=click.File("rb"))
@click.option("--read", is_flag=True, help="Put it there as read.")
@_waiting
@pass_cli
def append(cli: Cli, address: str, folder: str, file: Any, read: bool, wait: bool, timeout: float) -> None:
    """Put a message (an .eml file, - for standard input) into a folder."""
    content = file.read()
    with cli.db.begin() as session:
        flags = ["\\Seen"] if read else []
        queued = wishes.append(session, cli.actor, address, folder, content, flags)
    _tell(cli, queued, wait, timeout)


def _tell(cli: Cli, queued: Queued, wait: bool, timeout: float) -> None:
    """Say what was queued; with ``wait``, what came of it. Raises `UserError` where any was not done."""
    count = len(queued.commands)
    changes = f"{count} change{'' if count == 1 else 's'}"
    ids = [str(uid) for uid in queued.commands]
    if not wait:
        later = "" if queued.followed else "; the mailbox is not being followed now, so it waits for that"
        cli.say(f"queued {changes}{later}", queued=count, commands=ids, followed=queued.followed)
        return
    if not queued.followed:
        raise UserError(
            f"queued {changes}, but the mailbox is not being followed now: see `mailwright mailbox show`."
        )
    ends = _wait_for(cli, queued.commands, timeout)
    bad = [reason or state for state, reason in ends.values() if state in _NOT_DONE]
    if len(ends) < count:
        bad.append(f"{count - len(ends)} not done within {timeout:g} s; it stays queued")
    if bad:
        raise UserError("; ".join(dict.fromkeys(bad)))
    notes = list(dict.fromkeys(reason for _, reason in ends.values() if reason))
    cli.say("; ".join([f"done: {changes}", *notes]), done=count, commands=ids, notes=notes)


_NOT_DONE = frozenset({CommandState.FAILED, CommandState.VOID})


def _wait_for(
    cli: Cli, commands: tuple[UUID, ...], timeout: float
) -> dict[UUID, tuple[CommandState, str | None]]:
    deadline = time.monotonic() + timeout
    while True:
        with cli.db.begin() as session:
            ends = wishes.ended(session, commands)
        if len(ends) == len(commands) or time.monotonic() > deadline:
            return ends
        time.sleep(POLL_SECONDS)
