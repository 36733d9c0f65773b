"""``mailwright outbox``: what is queued, and what to do with it."""

from dataclasses import asdict
from typing import Any
from uuid import UUID

import click

from schema.tables.outbound import State
from tasks import outbound
from worker.cli.context import Cli, pass_cli, plain


@click.group()
def outbox() -> None:
    """List, show, hold, cancel and retry queued mail."""


@outbox.command("list")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only those in it.")
@click.option("--mailbox", metavar="ADDRESS", help="Only those of this mailbox.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many."
)
@pass_cli
def list_messages(cli: Cli, state: str | None, mailbox: str | None, limit: int) -> None:
    """List outgoing messages, newest first."""
    with cli.db.begin() as session:
        found = outbound.listing(
            cli.actor, session, mailbox=mailbox, state=State(state) if state else None, limit=limit
        )
    cli.table(
        [asdict(line) for line in found],
        ["id", "mailbox", "state", "recipients", "attempts", "due_at", "subject"],
        "the outbox has no such message.",
    )


@outbox.command()
@click.argument("uid", metavar="ID", type=click.UUID)
@pass_cli
def show(cli: Cli, uid: UUID) -> None:
    """Show one message with what became of each recipient and attempt."""
    with cli.db.begin() as session:
        shown = outbound.show(cli.actor, session, uid)
    if cli.as_json:
        cli.show(shown)
        return
    recipients, attempts = shown.pop("recipients"), shown.pop("attempts")
    cli.show({name: value for name, value in shown.items() if value is not None})
    for recipient in recipients:
        click.echo(f"{recipient['kind']:<9}  {plain(recipient['address'])}: {outcome(recipient, 'state')}")
    for attempt in attempts:
        click.echo(
            f"attempt {attempt['number']}  {plain(attempt['armed_at'])}: "
            f"{outcome(attempt, 'outcome')} (at {plain(attempt['stage'])}, "
            f"waited {plain(attempt['waited_ms'])} ms)"
        )


def outcome(row: dict[str, Any], field: str) -> str:
    """State and the server's words."""
    said = f", {plain(row['reply'])}" if row["reply"] else ""
    return f"{plain(row[field])}{said}"


@outbox.command()
@click.argument("uid", metavar="ID", type=click.UUID)
@pass_cli
def cancel(cli: Cli, uid: UUID) -> None:
    """Cancel a message that has not gone yet."""
    with cli.db.begin() as session:
        state = outbound.cancel(cli.actor, session, uid)
    if state is State.CANCELLED:
        cli.say(f"cancelled: {uid}", id=uid, state=state)
    else:
        cli.say(
            f"{uid} is {state}: it is on the wire now, and cancelled only if it comes back from there",
            id=uid,
            state=state,
        )


@outbox.command()
@click.argument("uid", metavar="ID", type=click.UUID)
@click.argument("verdict", type=click.Choice([verdict.value for verdict in outbound.Verdict]))
@click.option("--note", default="", help="How you know; kept with the message and in the audit trail.")
@pass_cli
def settle(cli: Cli, uid: UUID, verdict: str, note: str) -> None:
    """Say what became of a message in doubt: it was sent, it failed, or it is to be sent again."""
    with cli.db.begin() as session:
        state = outbound.settle(cli.actor, session, uid, outbound.Verdict(verdict), note)
    cli.say(f"{state}: {uid}", id=uid, state=state)


@outbox.command()
@click.argument("uid", metavar="ID", type=click.UUID)
@click.option("--reason", default="", help="Why; shown to who looks.")
@pass_cli
def hold(cli: Cli, uid: UUID, reason: str) -> None:
    """Keep a message back until it is released."""
    with cli.db.begin() as session:
        outbound.hold(cli.actor, session, uid, reason)
    cli.say(f"held: {uid}", id=uid, state=State.HELD)


@outbox.command()
@click.argument("uid", metavar="ID", type=click.UUID)
@pass_cli
def release(cli: Cli, uid: UUID) -> None:
    """Let a held message go, when its time has come."""
    with cli.db.begin() as session:
        outbound.release(cli.actor, session, uid)
    cli.say(f"queued: {uid}", id=uid, state=State.QUEUED)


@outbox.command()
@click.argument("uid", metavar="ID", type=click.UUID)
@click.option("--may-duplicate", is_flag=True, help="Also where it may have arrived: it may come twice.")
@pass_cli
def retry(cli: Cli, uid: UUID, may_duplicate: bool) -> None:
    """Send a message again, now, to those who did not get it."""
    with cli.db.begin() as session:
        outbound.retry(cli.actor, session, uid, may_duplicate=may_duplicate)
    cli.say(f"queued: {uid}", id=uid, state=State.QUEUED)
