"""``mailwright key``: keys to the HTTP API."""

from datetime import UTC, datetime
from uuid import UUID

import click

from config.errors import UserError
from tasks import access
from worker.cli.context import Cli, pass_cli


@click.group()
def key() -> None:
    """Make and remove keys to the HTTP API. A key acts as its user, within its scopes."""


@key.command()
@click.argument("user")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    metavar="SCOPE",
    help=f"What it is for (repeatable): {', '.join(access.Scope)}.",
)
@click.option("--expires", metavar="TIME", help="Until when it works (ISO 8601); default for ever.")
@click.option("--note", metavar="TEXT", help="Who or what has it.")
@pass_cli
def add(cli: Cli, user: str, scopes: tuple[str, ...], expires: str | None, note: str | None) -> None:
    """Make a key for USER and print it, once; it is stored as a digest only."""
    wanted = [access.parse_scope(scope) for scope in scopes]
    with cli.db.begin() as session:
        row, token = access.add_key(
            cli.actor,
            session,
            user,
            wanted,
            note=note,
            expires_at=None if expires is None else moment(expires),
        )
    cli.say(token, id=row.uid, key=token, scopes=row.scopes, expires_at=row.expires_at)


@key.command("list")
@click.option("--user", metavar="USER", help="Only those of this user.")
@pass_cli
def list_(cli: Cli, user: str | None) -> None:
    """List keys, without what they are, and when each was last used (to the minute)."""
    with cli.db.begin() as session:
        rows = access.list_keys(cli.actor, session, user)
    cli.table(
        [
            {"id": row.uid, **{name: value for name, value in row._mapping.items() if name != "uid"}}
            for row in rows
        ],
        ["id", "user", "scopes", "created_at", "expires_at", "last_used_at", "note"],
        "There are no API keys. Make one: mailwright key add USER --scope outbox:write",
    )


@key.command()
@click.argument("uid", metavar="ID", type=click.UUID)
@pass_cli
def remove(cli: Cli, uid: UUID) -> None:
    """Take a key back, at once."""
    with cli.db.begin() as session:
        user = access.remove_key(cli.actor, session, uid)
    cli.say(f"Key {uid} of user {access.quoted(user)} removed.", id=uid, user=user)


def moment(text: str) -> datetime:
    """A time in ISO 8601; without a zone it is UTC. Raises `UserError`."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UserError("--expires wants an ISO 8601 time such as 2030-01-31T09:00:00+01:00.") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
