"""``mailwright grant``: Operation permissions, an ordered list whose first matching line decides."""

from typing import Any

import click

from tasks import access
from worker.cli.context import Cli, pass_cli


@click.group()
def grant() -> None:
    """Order the operation permissions: the first line that matches a user and operation decides, and
    where none matches, the operation is denied."""


@grant.command()
@click.argument("operation")
@click.option("--user", metavar="USER", help="Whom the line is for: one user,")
@click.option("--role", metavar="ROLE", help="or everyone in a role.")
@click.option("--deny", is_flag=True, help="Deny instead of allow.")
@click.option("--position", type=int, metavar="N", help="Insert as line N; default is the end.")
@pass_cli
def add(
    cli: Cli, operation: str, user: str | None, role: str | None, deny: bool, position: int | None
) -> None:
    """Allow, or with --deny deny, OPERATION."""
    if (user is None) == (role is None):
        raise click.UsageError("Give either --user or --role.")
    grantee = (
        access.Grantee(access.GranteeKind.USER, user)
        if user is not None
        else access.Grantee(access.GranteeKind.ROLE, role or "")
    )
    wanted = access.parse_operation(operation)
    with cli.db.begin() as session:
        line = access.grant(cli.actor, session, wanted, grantee, allow=not deny, position=position)
    cli.say(f"{line.operation}: {line}.", **_row(line))


@grant.command("list")
@pass_cli
def list_(cli: Cli) -> None:
    """List the lines in the order in which they decide."""
    with cli.db.begin() as session:
        lines = access.list_grants(cli.actor, session)
    if not cli.as_json:
        click.echo("Operation permissions")
    cli.table(
        [_row(line) for line in lines],
        ["position", "operation", "label", "grantee", "access"],
        "There are no lines: every operation is denied to everyone.",
    )


@grant.command()
@click.argument("position", type=int)
@pass_cli
def remove(cli: Cli, position: int) -> None:
    """Take line POSITION out."""
    with cli.db.begin() as session:
        line = access.remove_grant(cli.actor, session, position)
    cli.say(f"Removed. {line.operation}: {line} no more.", **_row(line))


@grant.command()
@click.argument("position", type=int)
@click.argument("target", type=int)
@pass_cli
def move(cli: Cli, position: int, target: int) -> None:
    """Take line POSITION to TARGET; those between step aside."""
    with cli.db.begin() as session:
        line = access.move_grant(cli.actor, session, position, target)
    cli.say(f"{line.operation}: {line}.", **_row(line))


@grant.command()
@click.argument("user")
@click.argument("operation")
@pass_cli
def check(cli: Cli, user: str, operation: str) -> None:
    """Say whether USER holds OPERATION, and which line decides."""
    wanted = access.parse_operation(operation)
    with cli.db.begin() as session:
        verdict = access.explain(cli.actor, session, user, wanted)
    answer = "yes" if verdict.allowed else "no"
    cli.say(
        f"{answer}: user {access.quoted(verdict.user)}, {wanted}: {verdict.reason}.",
        user=verdict.user,
        operation=wanted,
        allowed=verdict.allowed,
        reason=verdict.reason,
        line=None if verdict.line is None else verdict.line.position,
    )


def _row(line: access.GrantLine) -> dict[str, Any]:
    return {
        "position": line.position,
        "operation": line.operation.value,
        "label": access.LABELS[line.operation],
        "grantee": f"{line.grantee.kind} {line.grantee.name}",
        "access": "allow" if line.allow else "deny",
    }
