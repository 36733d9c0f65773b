"""``mailwright sync``: ask for mailboxes to be synced now."""

import sys
import time
from datetime import datetime

import click
from click.termui import progressbar

from config.errors import UserError
from tasks import mailboxes, schedule
from tasks.access import Operation, require
from tasks.sync import compare_all
from worker.cli.context import Cli, pass_cli

POLL_SECONDS = 0.2


@click.command()
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]…")
@click.option(
    "--full", is_flag=True, help="Compare every message and flag, whatever the server says of changes."
)
@click.option("--wait", is_flag=True, help="Wait until they are synced.")
@click.option("--timeout", type=float, default=600.0, show_default=True, help="Longest wait, in seconds.")
@pass_cli
def sync(cli: Cli, addresses: tuple[str, ...], full: bool, wait: bool, timeout: float) -> None:
    """Ask for mailboxes (all, if none is named) to be synced now."""
    with cli.db.begin() as session:
        require(session, cli.actor, Operation.MANAGE_MAILBOXES, "ask for a sync")
        found = (
            [mailboxes.get(session, address) for address in addresses]
            if addresses
            else [each.mailbox for each in mailboxes.listing(cli.actor, session)]
        )
        names = {mailbox.id: mailbox.address for mailbox in found}
        if full:
            compare_all(session, list(names))
        since, asked = schedule.ask(session, list(names))
        schedule.try_now(session, asked)
    if addresses and len(asked) < len(names):
        idle = next(address for mailbox_id, address in names.items() if mailbox_id not in asked)
        raise UserError(
            f"{idle} is not being followed: it is paused, or receiving is off. "
            f"See `mailwright mailbox show {idle}`."
        )
    if not wait:
        cli.say(f"asked for {len(asked)} mailbox{'' if len(asked) == 1 else 'es'}", asked=len(asked))
        return
    failed = wait_for(cli, {i: names[i] for i in asked}, since, timeout)
    if failed:
        raise UserError("; ".join(f"{address}: {reason}" for address, reason in failed.items()))
    cli.say(f"synced {len(asked)} mailbox{'' if len(asked) == 1 else 'es'}", synced=len(asked))


def wait_for(cli: Cli, names: dict[int, str], since: datetime, timeout: float) -> dict[str, str]:
    """Wait until each was synced or failed; returns the failures by address."""
    deadline = time.monotonic() + timeout
    failed: dict[str, str] = {}
    waiting = dict(names)
    with progressbar(length=len(names), label="Syncing", file=sys.stderr, hidden=cli.as_json) as bar:
        while waiting:
            with cli.db.begin() as session:
                done = schedule.settled(session, list(waiting), since)
            for mailbox_id, reason in done.items():
                address = waiting.pop(mailbox_id)
                if reason is not None:
                    failed[address] = reason
                bar.update(1)
            if not waiting:
                break
            if time.monotonic() > deadline:
                late = f"not synced within {timeout:g} s; is a worker running?"
                failed |= dict.fromkeys(waiting.values(), late)
                break
            time.sleep(POLL_SECONDS)
    return failed
