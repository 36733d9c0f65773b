"""``mailwright suppression``: addresses that are not sent to any more."""

from dataclasses import asdict

import click

from tasks import outbound
from worker.cli.context import Cli, pass_cli

_MAILBOX = click.option(
    "--mailbox", metavar="ADDRESS", help="The list of this mailbox; by default the one for all."
)


@click.group()
def suppression() -> None:
    """List and edit the addresses that are not sent to any more."""


@suppression.command("list")
@click.option("--mailbox", metavar="ADDRESS", help="Only the list of this mailbox.")
@click.option("--address", metavar="ADDRESS", help="Only this address.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many."
)
@pass_cli
def list_(cli: Cli, mailbox: str | None, address: str | None, limit: int) -> None:
    """List entries, newest first."""
    with cli.db.begin() as session:
        found = outbound.suppressed(cli.actor, session, mailbox=mailbox, address=address, limit=limit)
    cli.table(
        [asdict(entry) for entry in found],
        ["address", "mailbox", "reason", "detail", "created_at"],
        "no address is suppressed.",
    )


@suppression.command()
@click.argument("address")
@_MAILBOX
@click.option("--detail", help="Why; shown to who looks.")
@pass_cli
def add(cli: Cli, address: str, mailbox: str | None, detail: str | None) -> None:
    """Send nothing to an address any more."""
    with cli.db.begin() as session:
        outbound.add_suppression(cli.actor, session, address, mailbox=mailbox, detail=detail)
    cli.say(f"suppressed: {address}", address=address, mailbox=mailbox)


@suppression.command()
@click.argument("address")
@_MAILBOX
@pass_cli
def remove(cli: Cli, address: str, mailbox: str | None) -> None:
    """Send to an address again."""
    with cli.db.begin() as session:
        outbound.remove_suppression(cli.actor, session, address, mailbox=mailbox)
    cli.say(f"no more suppressed: {address}", address=address, mailbox=mailbox)
