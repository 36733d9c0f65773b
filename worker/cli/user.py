"""``mailwright user``: who may be given rights."""

import click

from tasks import access
from worker.cli.context import Cli, pass_cli


@click.group()
def user() -> None:
    """Add, list and remove users."""


@user.command()
@click.argument("name")
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="Put the user in this role; repeatable.")
@pass_cli
def add(cli: Cli, name: str, roles: tuple[str, ...]) -> None:
    """Add a user."""
    with cli.db.begin() as session:
        row = access.add_user(cli.actor, session, name, roles)
    cli.say(f"User {access.quoted(row.name)} added.", uid=row.uid, name=row.name, roles=roles)


@user.command("list")
@pass_cli
def list_(cli: Cli) -> None:
    """List users with their roles."""
    with cli.db.begin() as session:
        rows = access.list_users(cli.actor, session)
    cli.table([dict(row._mapping) for row in rows], ["name", "roles", "created_at"], "There are no users.")


@user.command()
@click.argument("name")
@pass_cli
def remove(cli: Cli, name: str) -> None:
    """Remove a user with its memberships and grants."""
    with cli.db.begin() as session:
        row = access.remove_user(cli.actor, session, name)
    cli.say(f"User {access.quoted(row.name)} removed.", uid=row.uid, name=row.name)
