"""``mailwright outbox``: what is queued, and what to do with it."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click

from schema.tables.outbound import State
from tasks import outbound
from worker.cli.context import MOMENT, Cli, pass_cli, plain


@click.group()
def outbox() -> None:
    """List, show, hold, cancel and retry queued mail."""


@outbox.command("list")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only those in it.")
@click.option("--mailbox", metavar="ADDRESS", help="Only those of this mailbox.")
@click.option("--since", type=MOMENT, metavar="T", help="Only those accepted since then.")
@click.option("--recipient", metavar="ADDRESS", help="Only those to this recipient.")
@click.option("--key", metavar="K", help="Only the one with this idempotency key.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many."
)
@pass_cli
def list_messages(
    cli: Cli,
    state: str | None,
    mailbox: str | None,
    since: datetime | None,
    recipient: str | None,
    key: str | None,
    limit: int,
) -> None:
    """List outgoing messages, newest first."""
    with cli.db.begin() as session:
        found = outbound.listing(
            cli.actor,
            session,
            mailbox=mailbox,
            state=State(state) if state else None,
            since=_aware(since),
            recipient=recipient,
            key=key,
            limit=limit,
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
        if attempt["dialogue"]:
            click.echo(f"           {', '.join(map(_exchange, attempt['dialogue']))}")
        if attempt["evidence"]:
            click.echo(f"           {plain(attempt['settled_at'])}: {plain(attempt['evidence'])}")


def _aware(moment: datetime | None) -> datetime | None:
    """UTC unless it says otherwise."""
    return moment if moment is None or moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _exchange(said: dict[str, Any]) -> str:
    """``rcpt 3 x 250 in 12 ms``."""
    times = f"{said['times']} x " if said["times"] > 1 else ""
    code = "" if said["code"] is None else f"{times}{said['code']} "
    return f"{plain(said['step'])} {code}{said['ms']} ms"


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
@click.argument("uid", metavar="[ID]", type=click.UUID, required=False)
@pass_cli
def release(cli: Cli, uid: UUID | None) -> None:
    """Let a held message go, when its time has come; without ID, let a restored database send again."""
    with cli.db.begin() as session:
        if uid is None:
            outbound.release_sending(cli.actor, session, cli.settings)
            cli.say("sending goes on", released=True)
            return
        outbound.release(cli.actor, session, uid)
    cli.say(f"queued: {uid}", id=uid, state=State.QUEUED)


@outbox.command("why")
@click.argument("uid", metavar="ID", type=click.UUID)
@pass_cli
def tell_why(cli: Cli, uid: UUID) -> None:
    """Say why a message is not being sent now, and when it will be."""
    with cli.db.begin() as session:
        found = outbound.why(cli.actor, session, uid, cli.settings)
    cli.say(plain(found.reason), **asdict(found))


@outbox.command()
@click.argument("uid", metavar="ID", type=click.UUID)
@click.option(
    "--priority", type=click.IntRange(-100, 100), default=100, show_default=True, help="Higher goes first."
)
@pass_cli
def bump(cli: Cli, uid: UUID, priority: int) -> None:
    """Let a message go before others of its mailbox."""
    with cli.db.begin() as session:
        outbound.bump(cli.actor, session, uid, priority)
    cli.say(f"priority {priority}: {uid}", id=uid, priority=priority)


@outbox.command()
@click.argument("uid", metavar="ID", type=click.UUID)
@click.option("--not-before", type=MOMENT, metavar="T", required=True, help="When (UTC unless it says).")
@pass_cli
def reschedule(cli: Cli, uid: UUID, not_before: datetime) -> None:
    """Send a message at another time."""
    at = _aware(not_before)
    assert at is not None
    with cli.db.begin() as session:
        outbound.reschedule(cli.actor, session, uid, at)
    cli.say(f"not before {plain(at)}: {uid}", id=uid, due_at=at)


@outbox.command()
@click.argument("uid", metavar="ID", type=click.UUID)
@click.option("--at", type=MOMENT, metavar="T", help="Give it up then; by default now.")
@pass_cli
def expire(cli: Cli, uid: UUID, at: datetime | None) -> None:
    """Give a message up, now or at a time."""
    with cli.db.begin() as session:
        state = outbound.expire(cli.actor, session, uid, _aware(at))
    cli.say(f"{state}: {uid}", id=uid, state=state)


@outbox.command()
@click.argument("address")
@click.option("--until", type=MOMENT, metavar="T", help="Resume by itself then (UTC unless it says).")
@click.option("--reason", help="Why, for whoever asks later.")
@pass_cli
def pause(cli: Cli, address: str, until: datetime | None, reason: str | None) -> None:
    """Send nothing from a mailbox for a while; it goes on receiving."""
    with cli.db.begin() as session:
        outbound.pause(cli.actor, session, address, until=_aware(until), reason=reason)
    cli.say(f"sending is paused: {address}", address=address, until=_aware(until), reason=reason)


@outbox.command()
@click.argument("address")
@pass_cli
def resume(cli: Cli, address: str) -> None:
    """Let a mailbox send again."""
    with cli.db.begin() as session:
        outbound.resume(cli.actor, session, address)
    cli.say(f"sending goes on: {address}", address=address)


@outbox.command()
@click.argument("uid", metavar="ID", type=click.UUID)
@click.option("--may-duplicate", is_flag=True, help="Also where it may have arrived: it may come twice.")
@pass_cli
def retry(cli: Cli, uid: UUID, may_duplicate: bool) -> None:
    """Send a message again, now, to those who did not get it."""
    with cli.db.begin() as session:
        outbound.retry(cli.actor, session, uid, may_duplicate=may_duplicate)
    cli.say(f"queued: {uid}", id=uid, state=State.QUEUED)
