"""``mailwright provider``: how to talk to each mail service."""

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from config.errors import UserError
from schema.tables.providers import Paused
from tasks import providers
from tasks.access import quoted
from worker.cli.context import MOMENT, Cli, pass_cli

_SECURITY = click.Choice(["tls", "starttls", "none"])
_AUTHENTICATION = click.Choice(["password", "oauth2"])
_MOST_SECRET_BYTES = 4096


class _NumberOrNone(click.ParamType[int | str]):
    """A whole number, or the word none, which takes a limit away."""

    name = "N|none"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int | str:
        if str(value).lower() == "none":
            return "none"
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a whole number nor none.", param, context)


_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--receive/--no-receive", default=None, help="Download emails by IMAP."),
    click.option("--imap-host", metavar="H", help="IMAP host; implies --receive."),
    click.option("--imap-port", type=int, metavar="N", help="Default 993, or 143 without SSL/TLS."),
    click.option("--imap-security", type=_SECURITY, help="Default tls."),
    click.option("--imap-authentication", type=_AUTHENTICATION, help="Default password."),
    click.option("--send/--no-send", default=None, help="Allow sending emails."),
    click.option("--smtp-host", metavar="H", help="SMTP host; implies --send."),
    click.option("--smtp-port", type=int, metavar="N", help="Default 465 with tls, 587 starttls, 25 none."),
    click.option("--smtp-security", type=_SECURITY, help="Default tls."),
    click.option("--smtp-authentication", type=_AUTHENTICATION, help="Default password."),
    click.option("--smtp-timeout", type=int, metavar="SECONDS", help="1 to 600, default 40."),
    click.option(
        "--login", "login_mode", type=click.Choice(["email", "user", "manual"]), help="Default email."
    ),
    click.option("--oauth-client-id", metavar="ID", help="Of the application registered with the service."),
    click.option("--oauth-client-secret-stdin", is_flag=True, help="Read the secret from standard input."),
    click.option("--oauth-token-url", metavar="URL", help="Where tokens are had and refreshed."),
    click.option("--oauth-scopes", metavar="TEXT", help="Separated by spaces."),
    click.option("--oauth-authorization-url", metavar="URL", help="Where a browser is sent for consent."),
    click.option(
        "--oauth-device-url", metavar="URL", help="Where a device code is had (authorize --device)."
    ),
    click.option("--connections-per-account", type=int, metavar="N", help="Default 3."),
    click.option("--connections-per-host", type=int, metavar="N", help="Default 50."),
    click.option("--messages-per-minute", type=_NumberOrNone(), help="Default none: no limit."),
    click.option("--max-message-size", type=_NumberOrNone(), help="Bytes; default none: what EHLO says."),
    click.option("--max-recipients", type=int, metavar="N", help="Default 100."),
    click.option(
        "--sent-copy", type=click.Choice(["append", "server", "none"]), help="Who files it; default append."
    ),
    click.option("--trust-condstore/--no-trust-condstore", default=None, help="Default: trusted."),
    click.option("--resend-if-absent/--no-resend-if-absent", default=None, help="Default: not sent again."),
    click.option(
        "--logo", type=click.Path(path_type=Path), metavar="FILE", help="PNG, JPEG, GIF, WebP, SVG."
    ),
    click.option("--ca", type=click.Path(path_type=Path), metavar="FILE", help="Private CA, in PEM."),
]


def _card_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.group()
def provider() -> None:
    """Describe mail services."""


@provider.command()
@click.argument("name")
@_card_options
@click.option("--domain", "domains", multiple=True, metavar="D", help="A domain it serves; repeatable.")
@pass_cli
def add(cli: Cli, /, name: str, domains: tuple[str, ...], **options: Any) -> None:
    """Add a provider, IMAP / SMTP."""
    draft = _draft(options, name=name)
    keyring = None if draft.oauth_client_secret is providers.UNSET else cli.runtime.keyring
    with cli.db.begin() as session:
        row = providers.add(cli.actor, session, draft, domains, keyring)
    cli.say(f"Provider {quoted(row.name)} added.", uid=row.uid, name=row.name)


@provider.command()
@click.argument("name")
@click.option("--name", "new_name", metavar="NEW", help="Give it another name.")
@_card_options
@click.option("--no-logo", is_flag=True, help="Take the logo away.")
@click.option("--no-ca", is_flag=True, help="Trust the system's authorities again.")
@pass_cli
def edit(cli: Cli, /, name: str, new_name: str | None, no_logo: bool, no_ca: bool, **options: Any) -> None:
    """Change what is given; it applies to the next connection.

    A new host or weaker security makes the provider's mailboxes wait for a confirmation.
    """
    taken: dict[str, Any] = {"logo": None} if no_logo else {}
    if no_ca:
        taken["ca"] = None
    if new_name is not None:
        taken["name"] = new_name
    draft = _draft(options, **taken)
    keyring = None if draft.oauth_client_secret is providers.UNSET else cli.runtime.keyring
    with cli.db.begin() as session:
        row, waiting = providers.edit(cli.actor, session, name, draft, keyring)
    held = (
        f" {len(waiting)} of its mailboxes now wait for a confirmation before a password goes to the new "
        "place: mailwright mailbox confirm ADDRESS"
        if waiting
        else ""
    )
    cli.say(f"Provider {quoted(row.name)} edited.{held}", uid=row.uid, name=row.name, waiting=waiting)


@provider.command("list")
@pass_cli
def list_(cli: Cli) -> None:
    """List of email providers."""
    with cli.db.begin() as session:
        rows = [dict(row._mapping) for row in providers.list_providers(cli.actor, session)]
    if not cli.as_json:
        click.echo(providers.PROVIDERS)
        for row in rows:
            row["imap"] = _place(row, "imap") if row["receive"] else None
            row["smtp"] = _place(row, "smtp") if row["send"] else None
            row["state"] = providers.state(
                row["disabled"], row["paused"], row["paused_until"], row["mailboxes"]
            )
    cli.table(
        rows,
        ["name", "state", "imap", "smtp", "mailboxes", "domains"],
        "There are none. Add one: mailwright provider add NAME, or see: mailwright provider catalogue",
    )


@provider.command()
@click.argument("name")
@pass_cli
def show(cli: Cli, name: str) -> None:
    """Show a provider's card."""
    with cli.db.begin() as session:
        row, domains, mailboxes = providers.show(cli.actor, session, name)
    form = providers.facts if cli.as_json else providers.labelled
    cli.show(form(row, domains, mailboxes))


@provider.command()
@click.argument("name")
@pass_cli
def disable(cli: Cli, name: str) -> None:
    """Stop all use of a provider; nothing of it is removed."""
    with cli.db.begin() as session:
        row = providers.disable(cli.actor, session, name)
    cli.say(f"Provider {quoted(row.name)} is disabled.", uid=row.uid, name=row.name, disabled=True)


@provider.command()
@click.argument("name")
@pass_cli
def enable(cli: Cli, name: str) -> None:
    """Take a provider into use again."""
    with cli.db.begin() as session:
        row = providers.enable(cli.actor, session, name)
    cli.say(f"Provider {quoted(row.name)} is enabled.", uid=row.uid, name=row.name, disabled=False)


@provider.command()
@click.argument("name")
@click.option("--receiving", "what", flag_value=Paused.RECEIVING, type=Paused, help="Only syncing rests.")
@click.option("--sending", "what", flag_value=Paused.SENDING, type=Paused, help="Only sending rests.")
@click.option("--until", type=MOMENT, metavar="T", help="Resume by itself then (UTC unless it says).")
@click.option("--reason", help="Why, for whoever asks later.")
@pass_cli
def pause(cli: Cli, name: str, what: Paused | None, until: datetime | None, reason: str | None) -> None:
    """Leave a provider alone, until a time or until it is resumed; in both directions by default."""
    with cli.db.begin() as session:
        row = providers.pause(cli.actor, session, name, what=what or Paused.BOTH, until=until, reason=reason)
    said = providers.state(False, row.paused, row.paused_until, 0)
    cli.say(
        f"Provider {quoted(row.name)}: {said}.",
        uid=row.uid,
        name=row.name,
        paused=row.paused,
        until=row.paused_until,
        reason=row.paused_reason,
    )


@provider.command()
@click.argument("name")
@pass_cli
def resume(cli: Cli, name: str) -> None:
    """End a provider's pause; its mailboxes come back within a minute."""
    with cli.db.begin() as session:
        row = providers.resume(cli.actor, session, name)
    cli.say(f"Provider {quoted(row.name)} is resumed.", uid=row.uid, name=row.name, paused=None)


@provider.command()
@click.argument("name")
@pass_cli
def remove(cli: Cli, name: str) -> None:
    """Remove a provider that no mailbox uses, with its domains."""
    with cli.db.begin() as session:
        row = providers.remove(cli.actor, session, name)
    cli.say(f"Provider {quoted(row.name)} removed.", uid=row.uid, name=row.name)


@provider.command()
@click.argument("name")
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="- is standard output.",
)
@pass_cli
def logo(cli: Cli, name: str, output: Path) -> None:
    """Write a provider's logo to a file, as it was given."""
    with cli.db.begin() as session:
        picture = providers.logo_of(cli.actor, session, name)
    if str(output) == "-":
        sys.stdout.buffer.write(picture.content)
        return
    try:
        output.write_bytes(picture.content)
    except OSError as error:
        raise UserError(f"{quoted(str(output))} cannot be written: {error.strerror}.") from None
    size = len(picture.content)
    cli.say(f"Wrote {size} bytes of {picture.type} to {output}.", type=picture.type, bytes=size)


@provider.group(invoke_without_command=True)
@click.pass_context
def catalogue(context: click.Context) -> None:
    """List well-known providers, or install some of them."""
    if context.invoked_subcommand is not None:
        return
    cli = context.find_object(Cli)
    assert cli is not None
    rows = [
        {"name": entry.name, "domains": list(entry.domains), "note": entry.note}
        for entry in providers.entries()
    ]
    cli.table(rows, ["name", "domains", "note"], "The catalogue is empty.")


@catalogue.command()
@click.argument("names", nargs=-1, metavar="NAME…")
@click.option("--all", "everything", is_flag=True, help="Install all of them.")
@pass_cli
def install(cli: Cli, names: tuple[str, ...], everything: bool) -> None:
    """Add well-known providers with their domains; safe to repeat."""
    if bool(names) == everything:
        raise click.UsageError("Give the names of providers, or --all.")
    chosen = list(providers.entries()) if everything else [providers.entry(name) for name in names]
    with cli.db.begin() as session:
        results = providers.install(cli.actor, session, chosen)
    for entry, done in zip(chosen, results, strict=True):
        sentence = (
            f"{done.name}: installed with {len(done.domains)} domains. {entry.note}".rstrip()
            if done.added
            else f"{done.name}: there already, left as it is."
        )
        cli.say(
            "\n".join([sentence, *(f"  skipped: {why}" for why in done.skipped)]),
            name=done.name,
            added=done.added,
            domains=done.domains,
            skipped=done.skipped,
        )


def _draft(options: dict[str, Any], **more: Any) -> providers.ProviderDraft:
    """What was given on the command line; what was not stays unset."""
    given = {name: value for name, value in options.items() if value is not None}
    given = {name: None if value == "none" and name in _LIMITS else value for name, value in given.items()}
    if "logo" in given:
        given["logo"] = providers.read_logo(given["logo"])
    if "ca" in given:
        given["ca"] = providers.read_authority(given["ca"])
    if given.pop("oauth_client_secret_stdin"):
        given["oauth_client_secret"] = _secret_from_stdin()
    return providers.ProviderDraft(**(given | more))


_LIMITS = ("messages_per_minute", "max_message_size")


def _secret_from_stdin() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("OAuth client secret", hide_input=True))
    secret = sys.stdin.buffer.read(_MOST_SECRET_BYTES + 1).decode("utf-8", "replace").strip()
    if not 1 <= len(secret) <= _MOST_SECRET_BYTES:
        raise UserError("standard input must hold the OAuth client secret, at most 4096 bytes.")
    return secret


def _place(row: dict[str, Any], protocol: str) -> str:
    host, port = row[f"{protocol}_host"], row[f"{protocol}_port"]
    return f"{f'[{host}]' if ':' in host else host}:{port} {row[f'{protocol}_security']}"
