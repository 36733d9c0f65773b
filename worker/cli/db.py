"""``mailwright db``: bring the database to the present schema, and tell whether it is there."""

import logging

import click

from config.errors import UserError
from worker.cli.context import Cli, pass_cli


@click.group()
def db() -> None:
    """Apply and check migrations."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it logs even as it is imported


@db.command()
@pass_cli
def upgrade(cli: Cli) -> None:
    """Apply every migration that is missing; harmless when there is none."""
    from alembic.util.exc import CommandError

    from schema import migrations

    before, head = migrations.current(cli.db.engine), migrations.head()
    try:
        migrations.upgrade(cli.db.engine)
    except CommandError:
        raise _newer(before, head) from None
    if before == head:
        cli.say(f"The database is up to date ({head}).", before=before, after=head)
    else:
        cli.say(f"The database went from {before or 'nothing'} to {head}.", before=before, after=head)


@db.command()
@pass_cli
def check(cli: Cli) -> None:
    """Tell whether the database has the present schema."""
    from schema import migrations

    current, head = migrations.current(cli.db.engine), migrations.head()
    if current == head:
        cli.say(f"The database is up to date ({head}).", current=current, head=head)
        return
    if current is not None and current > head:
        raise _newer(current, head)
    raise UserError(
        f"the database is at {current or 'no revision'} and this mailwright wants {head}. "
        "Run `mailwright db upgrade`."
    )


def _newer(current: str | None, head: str) -> UserError:
    return UserError(
        f"the database is at {current}, which this mailwright does not know (it knows up to {head}). "
        "Install the newer mailwright that migrated it."
    )
