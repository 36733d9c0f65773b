"""``mailwright template``: subject, text and HTML with places for variables."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from tasks import outbound
from worker.cli.context import Cli, pass_cli
from worker.cli.send import VARIABLES, read_text, variables_of


@click.group()
def template() -> None:
    """Keep templates of outgoing mail."""


@template.command("list")
@pass_cli
def list_(cli: Cli) -> None:
    """List all templates."""
    with cli.db.begin() as session:
        found = outbound.templates(cli.actor, session)
    cli.table(
        [asdict(each) for each in found],
        ["name", "subject", "changed_at"],
        "there is no template yet. Add one: mailwright template set NAME --subject ... --text-file FILE",
    )


@template.command()
@click.argument("name")
@pass_cli
def show(cli: Cli, name: str) -> None:
    """Show one template's words."""
    with cli.db.begin() as session:
        cli.show(asdict(outbound.show_template(cli.actor, session, name)))


@template.command("set")
@click.argument("name")
@click.option("--subject", metavar="WORDS", help="The subject, with {{ variables }}.")
@click.option("--text-file", metavar="FILE", help="A file with the text in UTF-8; - is standard input.")
@click.option("--html", metavar="FILE", help="A file with the HTML in UTF-8; variables are escaped in it.")
@pass_cli
def set_(cli: Cli, name: str, subject: str | None, text_file: str | None, html: str | None) -> None:
    """Keep a template under a name, in the place of one that has it.

    Places look like {{ name }} or {{ order.number }}; there are {% if %}, {% for %} and filters such as
    |upper, |default("-"), |join(", "), and "%.2f"|format(price).
    """
    words = {
        "subject": subject,
        "text": read_text(text_file) if text_file is not None else None,
        "html": read_text(html) if html is not None else None,
    }
    with cli.db.begin() as session:
        fresh = outbound.store_template(cli.actor, session, name, words)
    cli.say(f"{'added' if fresh else 'changed'}: {name}", name=name, added=fresh)


@template.command()
@click.argument("name")
@pass_cli
def remove(cli: Cli, name: str) -> None:
    """Forget a template. What was accepted with it goes all the same."""
    with cli.db.begin() as session:
        outbound.remove_template(cli.actor, session, name)
    cli.say(f"removed: {name}", name=name)


@template.command()
@click.argument("name")
@VARIABLES
@click.option(
    "--variables-file", type=click.Path(path_type=Path), metavar="FILE", help="JSON with variables."
)
@pass_cli
def preview(cli: Cli, name: str, variables: tuple[str, ...], variables_file: Path | None) -> None:
    """Show what a template makes of variables; nothing is sent."""
    with cli.db.begin() as session:
        made = outbound.preview_template(cli.actor, session, name, variables_of(variables, variables_file))
    if cli.as_json:
        cli.show(made)
        return
    _print(made)


def _print(made: dict[str, Any]) -> None:
    for part in ("subject", "text", "html"):
        if made[part] is not None:
            shown = "".join(c if c.isprintable() or c in "\n\t" else "?" for c in made[part])
            click.echo(f"Subject: {shown}\n" if part == "subject" else shown)
