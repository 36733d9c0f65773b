"""``mailwright domain``: the lookup domain → provider."""

import click
import idna

from tasks import access, providers
from worker.cli.context import Cli, pass_cli


@click.group()
def domain() -> None:
    """Say which provider serves a domain."""


@domain.command()
@click.argument("name", metavar="DOMAIN")
@click.option("--provider", required=True, metavar="NAME", help="The provider that serves it.")
@pass_cli
def add(cli: Cli, name: str, provider: str) -> None:
    """Let mailboxes of DOMAIN find their provider."""
    with cli.db.begin() as session:
        row, label, new = providers.add_domain(cli.actor, session, name, provider)
    verb = "is now" if new else "was already"
    cli.say(
        f"{label} {verb} served by {access.quoted(row.name)}.", domain=label, provider=row.name, added=new
    )


@domain.command("list")
@click.option("--provider", metavar="NAME", help="Only the domains of this provider.")
@pass_cli
def list_(cli: Cli, provider: str | None) -> None:
    """List domains with their providers."""
    with cli.db.begin() as session:
        rows = [dict(row._mapping) for row in providers.list_domains(cli.actor, session, provider)]
        if provider is not None and not rows:
            providers.get(session, provider)
    for row in rows:
        row["unicode"] = _unicode(row["domain"])
    if not cli.as_json:
        click.echo(providers.DOMAINS)
        for row in rows:
            if row["unicode"] != row["domain"]:
                row["domain"] = f"{row['domain']} ({row['unicode']})"
    cli.table(rows, ["domain", "provider"], "No domain is assigned yet.")


@domain.command()
@click.argument("name", metavar="DOMAIN")
@pass_cli
def remove(cli: Cli, name: str) -> None:
    """Take DOMAIN from its provider; mailboxes already recognised by it stay."""
    with cli.db.begin() as session:
        label, owner = providers.remove_domain(cli.actor, session, name)
    cli.say(f"{label} is no longer served by {access.quoted(owner)}.", domain=label, provider=owner)


def _unicode(label: str) -> str:
    try:
        return idna.decode(label) if "xn--" in label else label
    except idna.IDNAError:
        return label
