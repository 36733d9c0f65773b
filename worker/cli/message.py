"""``mailwright message``: list, show and export what is stored."""

import sys
from pathlib import Path
from uuid import UUID

import click

from tasks.sync import reading
from worker.cli.context import Cli, pass_cli


@click.group()
def message() -> None:
    """List, show and export messages."""


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
@click.argument("id", type=click.UUID)
@pass_cli
def show(cli: Cli, id: UUID) -> None:
    """Show one message: headers, places, attachments, text."""
    with cli.db.begin() as session:
        found = reading.show_message(session, cli.actor, id)
    if cli.as_json:
        cli.show(found)
        return
    body = found.pop("text")
    found.pop("html")
    cli.show(found)
    if body:
        click.echo()
        click.echo("".join(c if c.isprintable() or c in "\n\t" else "?" for c in body))


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
