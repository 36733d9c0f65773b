"""``mailwright status``: what runs, and what waits."""

import sys

import click
from sqlalchemy import text

from config.errors import MailwrightError
from worker.cli.context import Cli, pass_cli
from worker.stack import supervise

COUNTS = text("""
    SELECT
        (SELECT count(*) FROM mailwright.mailboxes) AS mailboxes,
        (SELECT count(*) FROM mailwright.schedule WHERE enabled AND next_poll_at <= now()
            AND lease_until IS NULL) AS syncs_due,
        (SELECT count(*) FROM mailwright.schedule WHERE lease_until > now()) AS syncs_running,
        (SELECT count(*) FROM mailwright.schedule WHERE failures > 0) AS syncs_failing,
        (SELECT max(last_started_at) FROM mailwright.schedule) AS last_sync_started,
        (SELECT count(*) FROM mailwright.outbox WHERE state IN ('queued', 'deferred')) AS mail_waiting,
        (SELECT count(*) FROM mailwright.outbox WHERE state = 'uncertain') AS mail_uncertain,
        (SELECT count(*) FROM mailwright.events_pending) AS events_pending
""")


@click.command()
@pass_cli
def status(cli: Cli) -> None:
    """Tell which processes run here and what waits."""
    rows = [
        {
            "process": each.name,
            "pid": each.pid,
            "uptime": None if each.uptime is None else f"{each.uptime:.0f} s",
            "state": each.state.value,
            "restarts": each.restarts,
        }
        for each in supervise.status(cli.settings.home)
    ]
    counts: dict[str, object] = {}
    try:
        with cli.db.begin() as session:
            counts = dict(session.execute(COUNTS).one()._mapping)
    except MailwrightError as error:
        counts = {"database": str(error)}
    if cli.as_json:
        cli.show({"processes": rows, **counts})
    else:
        cli.table(rows, ["process", "pid", "uptime", "state", "restarts"], "No embedded stack runs here.")
        click.echo()
        cli.show(counts)
    if "database" in counts:
        sys.exit(1)
