"""``mailwright beat``: a module of its own, which loads no database."""

import click

from worker.app import make_app
from worker.beat import Beat
from worker.cli.context import Cli, pass_cli


@click.command()
@pass_cli
def beat(cli: Cli) -> None:
    """Run beat, which only ticks; one suffices, more do no harm."""
    Beat(
        app=make_app(cli.settings),
        scheduler_cls="worker.beat:TickScheduler",
        loglevel=cli.settings.log_level,
        logfile=None,
        quiet=True,
    ).run()
