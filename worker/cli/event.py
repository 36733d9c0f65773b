"""``mailwright event``: read the event log."""

import time

import click

from tasks import mailboxes
from tasks.events.envelope import cloudevent
from tasks.events.log import events_after
from worker.cli.context import Cli, pass_cli, to_json

FOLLOW_SECONDS = 0.25


@click.group()
def event() -> None:
    """List and follow events."""


@event.command("list")
@click.option("--after", type=click.IntRange(0), default=0, show_default=True, help="Behind this position.")
@click.option("--mailbox", help="Only this mailbox's.")
@click.option("--type", "types", multiple=True, help="Only this type; may be given several times.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True)
@pass_cli
def list_(cli: Cli, after: int, mailbox: str | None, types: tuple[str, ...], limit: int) -> None:
    """List events behind a position, oldest first."""
    print_page(cli, after, mailbox, types, limit)


@event.command()
@click.option("--after", type=click.IntRange(0), default=0, show_default=True, help="Behind this position.")
@click.option("--mailbox", help="Only this mailbox's.")
@click.option("--type", "types", multiple=True, help="Only this type; may be given several times.")
@pass_cli
def follow(cli: Cli, after: int, mailbox: str | None, types: tuple[str, ...]) -> None:
    """Print events as they come, until interrupted."""
    while True:
        reached = print_page(cli, after, mailbox, types, 500)
        if reached == after:
            time.sleep(FOLLOW_SECONDS)
        after = reached


def print_page(cli: Cli, after: int, mailbox: str | None, types: tuple[str, ...], limit: int) -> int:
    """Print one page; returns the position reached."""
    with cli.db.begin() as session:
        mailbox_id = mailboxes.get(session, mailbox).id if mailbox else None
        rows = events_after(
            session, cli.actor, after, mailbox_id=mailbox_id, types=types or None, limit=limit
        )
    for row in rows:
        if cli.as_json:
            click.echo(to_json(cloudevent(row)))
        else:
            when = row.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
            facts = to_json({k: v for k, v in row.data.items() if k not in {"mailbox"}})
            click.echo(f"{row.position:>7}  {when}  {row.type:<24}  {facts[:160]}")
    return rows[-1].position if rows else after
