"""``mailwright role``: groups of users that grants can name."""

import click

from tasks import access
from worker.cli.context import Cli, pass_cli


@click.group()
def role() -> None:
    """Add, list and remove roles, and say who is in them."""


@role.command()
@click.argument("name")
@pass_cli
def add(cli: Cli, name: str) -> None:
    """Add a role."""
    with cli.db.begin() as session:
        row = access.add_role(cli.actor, session, name)
    cli.say(f"Role {access.quoted(row.name)} added.", uid=row.uid, name=row.name)


@role.command("list")
@pass_cli
def list_(cli: Cli) -> None:
    """List roles with their users."""
    with cli.db.begin() as session:
        rows = access.list_roles(cli.actor, session)
    cli.table([dict(row._mapping) for row in rows], ["name", "users", "created_at"], "There are no roles.")


@role.command()
@click.argument("name")
@pass_cli
def remove(cli: Cli, name: str) -> None:
    """Remove a role with its memberships and grants."""
    with cli.db.begin() as session:
        row = access.remove_role(cli.actor, session, name)
    cli.say(f"Role {access.quoted(row.name)} removed.", uid=row.uid, name=row.name)


@role.command()
@click.argument("name")
@click.argument("user")
@pass_cli
def assign(cli: Cli, name: str, user: str) -> None:
    """Put USER in the role NAME."""
    with cli.db.begin() as session:
        changed = access.assign_role(cli.actor, session, name, user)
    _tell(cli, name, user, "is now" if changed else "was already", changed)


@role.command()
@click.argument("name")
@click.argument("user")
@pass_cli
def unassign(cli: Cli, name: str, user: str) -> None:
    """Take USER out of the role NAME."""
    with cli.db.begin() as session:
        changed = access.unassign_role(cli.actor, session, name, user)
    _tell(cli, name, user, "is no longer" if changed else "was not", changed)


def _tell(cli: Cli, name: str, user: str, verb: str, changed: bool) -> None:
    sentence = f"User {access.quoted(user)} {verb} in role {access.quoted(name)}."
    cli.say(sentence, role=name, user=user, changed=changed)
