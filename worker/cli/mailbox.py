"""``mailwright mailbox``: add, test and manage mailboxes."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from config.errors import TransientError, UserError
from schema.tables.mailboxes import Keep, MailboxState
from tasks.mailboxes import Changes, NewMailbox, authorizing, editing, engine, listing
from tasks.mailboxes.connection import Heard, Report, StepResult, TestFailed
from tasks.mailboxes.lookup import Listed
from tasks.mailboxes.plan import Door
from tasks.mailboxes.removal import remove as remove_mailbox
from tasks.mailboxes.values import LONGEST_PASSWORD
from tasks.mailboxes.why import why
from worker.cli import consent
from worker.cli.context import MOMENT, Cli, pass_cli, plain

_KEEP = click.Choice([keep.value for keep in Keep])


@click.group()
def mailbox() -> None:
    """Add, test and manage mailboxes."""


@mailbox.command()
@click.argument("address")
@click.option("--provider", metavar="NAME", help="The provider; by default found by the address's domain.")
@click.option("--login", help="The login; by default derived as the provider says.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--owner", metavar="USER", help="The user who may read and send it.")
@click.option("--display-name", metavar="NAME", help="The name beside the address in what it sends.")
@click.option("--no-receive", is_flag=True, help="Do not download its mail.")
@click.option("--no-send", is_flag=True, help="Do not send from it.")
@click.option("--folder", "folders", multiple=True, metavar="F", help="Follow this folder only (repeatable).")
@click.option(
    "--history-days", type=int, metavar="N", help="Fetch this many days of older mail; default all."
)
@click.option(
    "--notify-from", type=MOMENT, metavar="T", help="Announce what arrives from then on; default now."
)
@click.option("--poll-seconds", type=float, metavar="N", help="Look this often; default as mail flows.")
@click.option("--keep", type=_KEEP, default=Keep.EVERYTHING.value, show_default=True, help="What to store.")
@click.option("--send-as", multiple=True, metavar="ADDRESS", help="An address it may send as (repeatable).")
@click.option("--no-test", is_flag=True, help="Do not test the connection.")
@click.option("--store-anyway", is_flag=True, help="Store it even if the test fails.")
@pass_cli
def add(
    cli: Cli,
    address: str,
    provider: str | None,
    login: str | None,
    password_stdin: bool,
    owner: str | None,
    display_name: str | None,
    no_receive: bool,
    no_send: bool,
    folders: tuple[str, ...],
    history_days: int | None,
    notify_from: datetime | None,
    poll_seconds: float | None,
    keep: str,
    send_as: tuple[str, ...],
    no_test: bool,
    store_anyway: bool,
) -> None:
    """Add a mailbox, after its connections proved to work.

    What logs in by OAuth 2.0 needs no password but a consent, given next: mailbox authorize.
    """
    new = NewMailbox(
        address=address,
        password=read_password() if password_stdin else None,
        provider=provider,
        login=login,
        owner=owner,
        display_name=display_name,
        receive=not no_receive,
        send=not no_send,
        folders=folders or None,
        history_days=history_days,
        notify_from=notify_from,
        poll_seconds=poll_seconds,
        keep=Keep(keep),
        send_as=send_as,
    )
    try:
        added = engine.add(
            cli.actor, cli.runtime, new, test=not no_test, store_anyway=store_anyway, heard=teller(cli)
        )
    except TestFailed as error:
        tell_reports(cli, error.reports)
        raise
    stored = added.mailbox
    then = (
        f". Its provider logs in by OAuth 2.0, next: mailwright mailbox authorize {stored.address}"
        if added.consent_needed
        else ""
    )
    cli.say(
        f"added {stored.address}, login {stored.login}, provider {added.provider}{then}",
        mailbox=stored.uid,
        address=stored.address,
        login=stored.login,
        provider=added.provider,
        consent_needed=added.consent_needed,
        tests=[as_json(report) for report in added.reports],
    )


@mailbox.command("list")
@click.option("--provider", metavar="NAME", help="Only those of this provider.")
@click.option("--state", type=click.Choice([state.value for state in MailboxState]), help="Only those in it.")
@pass_cli
def list_mailboxes(cli: Cli, provider: str | None, state: str | None) -> None:
    """List mailboxes; without CanManageMailboxes, your own."""
    with cli.db.begin() as session:
        rows = [row_of(found) for found in listing(cli.actor, session, provider=provider, state=state)]
    cli.table(
        rows,
        ["address", "provider", "login", "state", "receive", "send", "owner"],
        "there is no mailbox. Add one: mailwright mailbox add ADDRESS --password-stdin",
    )


@mailbox.command()
@click.argument("address")
@pass_cli
def show(cli: Cli, address: str) -> None:
    """Show a mailbox with its state and what it follows."""
    with cli.db.begin() as session:
        found = engine.shown(cli.actor, session, address)
        row = row_of(found.listed) | dict(found.lanes)
    cli.show(row)


@mailbox.command("why")
@click.argument("address")
@pass_cli
def tell_why(cli: Cli, address: str) -> None:
    """Say why a mailbox is or is not being synced now, and when it will be."""
    with cli.db.begin() as session:
        found = why(cli.actor, session, address, cli.settings.lease_seconds)
    cli.say(found.reason, **asdict(found))


@mailbox.command("test")
@click.argument("address")
@pass_cli
def test_mailbox(cli: Cli, address: str) -> None:
    """Test a mailbox's connections, step by step. Exits with 1 if one fails."""
    reports = engine.probe(cli.actor, cli.runtime, address, teller(cli))
    tell_reports(cli, reports)
    for report in reports:
        if report.failure is not None:
            raise TransientError(
                f"{address}: {report.protocol.upper()} at {report.server} failed at {report.failure.step}. "
                f"{report.failure.said} {report.failure.remedy}"
            )


@mailbox.command()
@click.argument("address")
@click.option("--provider", metavar="NAME")
@click.option("--login")
@click.option("--password-stdin", is_flag=True, help="Read a new password from standard input.")
@click.option("--owner", metavar="USER", help="'' takes the owner away.")
@click.option("--display-name", metavar="NAME", help="'' takes it away.")
@click.option("--receive/--no-receive", default=None)
@click.option("--send/--no-send", default=None)
@click.option(
    "--folder", "folders", multiple=True, metavar="F", help="Follow these folders only (repeatable)."
)
@click.option("--all-folders", is_flag=True, help="Follow every folder.")
@click.option("--history-days", type=int, metavar="N", help="Days of older mail to fetch; -1: all.")
@click.option("--notify-from", type=MOMENT, metavar="T")
@click.option("--poll-seconds", type=float, metavar="N", help="0: as mail flows.")
@click.option("--keep", type=_KEEP)
@click.option(
    "--send-as", multiple=True, metavar="ADDRESS", help="The addresses it may send as (repeatable)."
)
@click.option("--no-test", is_flag=True, help="Do not test new credentials.")
@click.option("--store-anyway", is_flag=True, help="Store them even if the test fails.")
@pass_cli
def edit(
    cli: Cli, /, address: str, password_stdin: bool, no_test: bool, store_anyway: bool, **given: Any
) -> None:
    """Change a mailbox. New credentials are tested first and start it afresh."""
    changes = changes_of(given)
    if password_stdin:
        changes["password"] = read_password()
    if not changes:
        raise click.UsageError("nothing to change; see mailwright mailbox edit --help.")
    try:
        edited, _ = editing.edit(
            cli.actor,
            cli.runtime,
            address,
            changes,
            test=not no_test,
            store_anyway=store_anyway,
            heard=teller(cli),
        )
    except TestFailed as error:
        tell_reports(cli, error.reports)
        raise
    cli.say(f"edited {edited.address}", mailbox=edited.uid, address=edited.address, changed=sorted(changes))


@mailbox.command()
@click.argument("address")
@click.option("--until", type=MOMENT, metavar="T", help="Resume by itself then (UTC unless it says).")
@click.option("--reason", help="Why, for whoever asks later.")
@pass_cli
def pause(cli: Cli, address: str, until: datetime | None, reason: str | None) -> None:
    """Leave a mailbox alone, until a time or until it is resumed."""
    with cli.db.begin() as session:
        paused = engine.pause(cli.actor, session, address, until=until, reason=reason)
    ends = "" if paused.paused_until is None else f" until {paused.paused_until:%Y-%m-%d %H:%M} UTC"
    cli.say(
        f"paused {paused.address}{ends}", address=paused.address, until=paused.paused_until, reason=reason
    )


@mailbox.command()
@click.argument("address")
@pass_cli
def resume(cli: Cli, address: str) -> None:
    """End a pause, or let a mailbox that needs attention try at once."""
    with cli.db.begin() as session:
        resumed = engine.resume(cli.actor, session, address)
    cli.say(f"resumed {resumed.address}", address=resumed.address, state=resumed.state)


@mailbox.command()
@click.argument("address")
@click.option("--device", is_flag=True, help="Consent on any device, by entering a code there.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Loopback port for the browser; default any."
)
@click.option(
    "--wait",
    type=click.FloatRange(1, 3600),
    default=600,
    metavar="SECONDS",
    help="For the consent; default 600.",
)
@click.option("--no-test", is_flag=True, help="Do not test the connection.")
@click.option("--store-anyway", is_flag=True, help="Store the consent even if the test fails.")
@pass_cli
def authorize(
    cli: Cli, address: str, device: bool, port: int, wait: float, no_test: bool, store_anyway: bool
) -> None:
    """Let a mailbox log in by OAuth 2.0: ask its owner for consent, test it, store it.

    By default a browser on this machine is sent to the service and comes back to a port on loopback.
    Again after consent was withdrawn, it starts the mailbox afresh.
    """
    wanted = authorizing.begin(cli.actor, cli.runtime, address)
    given = consent.on_device(wanted, wait) if device else consent.in_browser(wanted, port, wait)
    try:
        authorized, reports = authorizing.finish(
            cli.actor,
            cli.runtime,
            wanted,
            given,
            test=not no_test,
            store_anyway=store_anyway,
            heard=teller(cli),
        )
    except TestFailed as error:
        tell_reports(cli, error.reports)
        raise
    cli.say(
        f"authorized {authorized.address}",
        mailbox=authorized.uid,
        address=authorized.address,
        tests=[as_json(report) for report in reports],
    )


@mailbox.command()
@click.argument("address", required=False)
@click.option("--provider", metavar="NAME", help="All waiting mailboxes of this provider.")
@pass_cli
def confirm(cli: Cli, address: str | None, provider: str | None) -> None:
    """Let passwords go to the provider's new host, or over its weaker security."""
    if (address is None) == (provider is None):
        raise click.UsageError("name a mailbox, or a provider with --provider NAME.")
    runtime = cli.runtime
    if provider is None:
        assert address is not None
        with runtime.db.begin() as session:
            engine.confirm(cli.actor, session, runtime.keyring, address)
        cli.say(f"confirmed {address}", confirmed=1)
        return
    total = 0
    while True:
        with runtime.db.begin() as session:
            done = engine.confirm_provider(cli.actor, session, runtime.keyring, provider)
        total += done
        if not done:
            break
    cli.say(f"confirmed {total} mailboxes of {provider}", confirmed=total)


@mailbox.command()
@click.argument("address")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_cli
def remove(cli: Cli, address: str, yes: bool) -> None:
    """Erase a mailbox and all it had here; the server's mail is not touched."""
    if not yes and sys.stdin.isatty():
        click.confirm(f"erase {address} and all its mail from this database?", abort=True, err=True)
    told = {"rows": 0}

    def heard(what: str, count: int) -> None:
        told["rows"] += count
        if sys.stderr.isatty():
            click.echo(f"\rerasing: {told['rows']} rows ({what})   ", nl=False, err=True)

    erased = remove_mailbox(cli.actor, cli.runtime, address, heard)
    if sys.stderr.isatty() and told["rows"]:
        click.echo("", err=True)
    cli.say(
        f"removed {erased.address}: {erased.messages} messages, {erased.outbound} outgoing "
        f"({erased.cancelled} of them unsent)",
        address=erased.address,
        messages=erased.messages,
        outbound=erased.outbound,
        cancelled=erased.cancelled,
    )


def read_password() -> str:
    """The password on standard input, without one newline at its end."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, err=True))
    try:
        given = sys.stdin.buffer.read(4 * LONGEST_PASSWORD + 3).decode()
    except UnicodeDecodeError:
        raise UserError("the password on standard input is not UTF-8 text.") from None
    return given.removesuffix("\n").removesuffix("\r")


def changes_of(given: Mapping[str, Any]) -> Changes:
    """The options of ``mailbox edit`` that were given, as `Changes`; '' , -1 and 0 take a value away."""
    changes: Changes = {}
    for name in ("provider", "login", "receive", "send", "notify_from"):
        if given[name] is not None:
            changes[name] = given[name]
    if given["owner"] is not None:
        changes["owner"] = given["owner"] or None
    if given["display_name"] is not None:
        changes["display_name"] = given["display_name"] or None
    if given["all_folders"] and given["folders"]:
        raise click.UsageError("--folder and --all-folders contradict each other.")
    if given["all_folders"] or given["folders"]:
        changes["folders"] = given["folders"] or None
    if given["history_days"] is not None:
        changes["history_days"] = None if given["history_days"] == -1 else given["history_days"]
    if given["poll_seconds"] is not None:
        changes["poll_seconds"] = given["poll_seconds"] or None
    if given["keep"] is not None:
        changes["keep"] = Keep(given["keep"])
    if given["send_as"]:
        changes["send_as"] = tuple(address for address in given["send_as"] if address)
    return changes


def teller(cli: Cli) -> Heard:
    """Print each step of a connection test as it ends, to a person."""

    def heard(door: Door, result: StepResult) -> None:
        if cli.as_json:
            return
        mark = "ok" if result.ok else "FAILED"
        line = f"{door.protocol.upper()}  {result.step:<10} {mark:<6} {result.milliseconds:>8.1f} ms"
        click.echo(line if result.ok else plain(f"{line}  {result.said}"))

    return heard


def tell_reports(cli: Cli, reports: tuple[Report, ...]) -> None:
    """Print the tests: JSON in full; to a person, who saw the steps, what to do."""
    if cli.as_json:
        cli.say("", tests=[as_json(report) for report in reports])
        return
    for report in reports:
        if report.failure is None:
            click.echo(f"{report.protocol.upper()} at {report.server} works.")
        else:
            click.echo(plain(f"{report.protocol.upper()} at {report.server}: {report.failure.remedy}"))


def as_json(report: Report) -> dict[str, Any]:
    """A test as JSON."""
    return {
        "protocol": report.protocol.value,
        "server": report.server,
        "security": report.security,
        "ok": report.ok,
        "steps": [
            {"step": step.step, "ok": step.ok, "milliseconds": step.milliseconds}
            | ({} if step.ok else {"said": step.said, "remedy": step.remedy})
            for step in report.steps
        ],
    }


def row_of(listed: Listed) -> dict[str, Any]:
    """A mailbox as people and programs see it; nothing of its secret."""
    mailbox, provider = listed.mailbox, listed.provider
    retries = [at for at in (mailbox.imap_retry_at, mailbox.smtp_retry_at) if at and at > datetime.now(UTC)]
    return {
        "mailbox": mailbox.uid,
        "address": mailbox.address,
        "provider": provider.name,
        "login": mailbox.login,
        "state": _state_of(listed),
        "reason": mailbox.state_reason,
        "paused_until": mailbox.paused_until,
        "next_login_at": min(retries, default=None),
        "receive": mailbox.receive and provider.receive,
        "send": mailbox.send and provider.send,
        "owner": listed.owner,
        "display_name": mailbox.display_name,
        "folders": mailbox.folders,
        "history_days": mailbox.history_days,
        "notify_from": mailbox.notify_from,
        "poll_seconds": mailbox.poll_seconds,
        "keep": mailbox.keep,
        "send_as": mailbox.send_as,
        "connected_at": mailbox.connected_at,
        "created_at": mailbox.created_at,
    }


def _state_of(listed: Listed) -> str:
    if listed.mailbox.awaiting_confirmation:
        return "awaiting confirmation"
    return "awaiting consent" if listed.consent_needed else listed.mailbox.state
