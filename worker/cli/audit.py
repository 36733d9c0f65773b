"""``mailwright audit``: who changed what, and when."""

from typing import Any

import click

from tasks import access
from worker.cli.context import Cli, pass_cli, plain


@click.group()
def audit() -> None:
    """Read who changed what."""


@audit.command("list")
@click.option("--limit", type=int, default=50, show_default=True, help="Entries at most, newest first.")
@click.option("--kind", metavar="KIND", help="Only of this kind: provider, user, role, grant, mailbox …")
@click.option("--actor", metavar="USER", help="Only what this user did.")
@pass_cli
def list_(cli: Cli, limit: int, kind: str | None, actor: str | None) -> None:
    """List the latest changes, newest first; secrets are masked."""
    with cli.db.begin() as session:
        entries = access.list_audit(cli.actor, session, limit, kind, actor)
    if cli.as_json:
        cli.table([_row(entry) for entry in entries], [], "")
        return
    if not entries:
        click.echo("Nothing was changed yet.")
    for entry in entries:
        at = plain(entry.at)
        click.echo(plain(f"{at}  {entry.actor}  {entry.action}  {access.quoted(entry.name)}"))
        for field, (before, after) in entry.changes.items():
            click.echo(f"    {plain(field)}: {plain(before)} → {plain(after)}")


def _row(entry: access.AuditEntry) -> dict[str, Any]:
    return {
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action,
        "kind": entry.kind,
        "uid": entry.object_uid,
        "name": entry.name,
        "changes": entry.changes,
    }
