"""The processes: worker, relay, watcher, the HTTP API, and Flower."""

import ctypes
import gc
import os
import resource
import signal
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

import click
import structlog

from schema import migrations
from schema.database import Database, SchemaMissing
from tasks.runtime import install_runtime
from worker.cli.context import Cli, pass_cli

_log = structlog.get_logger()

# mallopt(3) of glibc: what it calls them, and how much.
_ARENA_MAX = (-8, 1)
_MMAP_THRESHOLD = (-3, 256 * 1024)


@click.command()
@click.option(
    "--concurrency", type=click.IntRange(1, 64), help="Tasks at once; default MAILWRIGHT_CONCURRENCY."
)
@click.option("--lane", "lanes", multiple=True, help="Serve this lane only; may be given several times.")
@pass_cli
def worker(cli: Cli, concurrency: int | None, lanes: tuple[str, ...]) -> None:
    """Run a worker. SIGTERM lets it finish what is on the wire and give the rest back."""
    from celery.signals import worker_ready, worker_shutting_down

    from config.queues import Lane, queue_name
    from worker.app import TASK_MODULES, make_app

    _give_memory_back()
    chosen = [Lane(name) for name in lanes] if lanes else list(Lane)
    runtime = cli.runtime
    _require_schema(runtime.db)
    install_runtime(runtime)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # each resting session is one
    app = make_app(cli.settings, TASK_MODULES)
    ready = threading.Event()
    worker_ready.connect(lambda **_: ready.set(), weak=False)
    worker_ready.connect(_settle, weak=False)
    worker_shutting_down.connect(lambda **_: runtime.stopping.set(), weak=False)
    process = app.Worker(
        pool="threads",
        concurrency=concurrency or cli.settings.concurrency,
        queues=[queue_name(lane) for lane in chosen],
        loglevel=cli.settings.log_level,
        hostname=f"mailwright-{os.getpid()}@%h",
        without_gossip=True,
        without_mingle=True,
        optimization="fair",
    )
    process.start()
    runtime.close()
    if process.exitcode and ready.is_set() and not runtime.stopping.is_set():
        _begin_anew()
    sys.exit(process.exitcode or 0)


@click.command()
@pass_cli
def relay(cli: Cli) -> None:
    """Run the relay: events get their position and go to the sinks."""
    from tasks.events import relay as engine
    from tasks.events.sinks import open_sinks

    runtime = cli.runtime
    _require_schema(runtime.db)
    _stop_on_signal(runtime.stopping)
    engine.run(runtime, open_sinks(cli.settings))


@click.command()
@pass_cli
def watcher(cli: Cli) -> None:
    """Run a watcher: it waits in IDLE on many mailboxes and wakes the sync at once."""
    from worker.watcher import make_watcher

    runtime = cli.runtime
    _require_schema(runtime.db)
    _stop_on_signal(runtime.stopping)
    make_watcher(runtime).run()


@click.command()
@click.option("--address", help="Default MAILWRIGHT_HTTP_ADDRESS.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default MAILWRIGHT_HTTP_PORT.")
@pass_cli
def http(cli: Cli, address: str | None, port: int | None) -> None:
    """Run the HTTP API. SIGTERM lets it answer what it has begun."""
    from worker.api.server import serve

    _require_schema(cli.db)
    serve(cli.settings, address or cli.settings.http_address, port or cli.settings.http_port)


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5555, show_default=True)
@click.option("--address", default="127.0.0.1", show_default=True)
@pass_cli
def flower(cli: Cli, port: int, address: str) -> None:
    """Run Flower, the task dashboard."""
    from config.errors import UserError
    from worker.app import make_app

    try:
        import flower.command  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            'Flower is not installed. Install it with: pip install "mailwright[dashboard]"'
        ) from None
    make_app(cli.settings).start(["flower", f"--address={address}", f"--port={port}"])


def _give_memory_back() -> None:
    """Have glibc give large blocks back to the system as soon as they are free, and keep one heap for all
    threads, which take turns anyhow: mail comes in all sizes, and what one had needed would stay."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in (_ARENA_MAX, _MMAP_THRESHOLD):
            mallopt(parameter, value)


def _begin_anew() -> NoReturn:
    """Celery's consumer fell over, as it sometimes does when the broker goes away (kombu closes one channel
    and stumbles over the next): the same command again, in the same process; nobody has to be there."""
    _log.error("worker.restarts")
    time.sleep(1)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  as it was started


def _settle(**_: object) -> None:
    """Leave what is loaded out of garbage collections: each would look through all of it again, for 50 to
    100 ms in which no thread runs, once in some thousand messages."""
    gc.collect()
    gc.freeze()


def _require_schema(db: Database) -> None:
    if migrations.current(db.engine) != migrations.head():
        raise SchemaMissing("the database is not at this version's schema. Run `mailwright db upgrade`.")


def _stop_on_signal(stopping: threading.Event) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        _log.info("process.stopping", signal=signal.Signals(number).name)
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
