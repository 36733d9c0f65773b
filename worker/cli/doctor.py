"""``mailwright doctor``: check the whole set-up, one line each, and say what to mend."""

import stat
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import click
import redis
from sqlalchemy import text
from sqlalchemy.orm import Session

from config.errors import MailwrightError
from config.settings import Settings
from schema import migrations
from schema.database import Database
from tasks import outbound
from tasks.events.sinks import redis_url
from tasks.mailboxes import rotation
from tasks.runtime import Runtime
from tasks.secrets import load_key_ring
from worker.cli.context import Cli, pass_cli

OLDEST_PYTHON: Final = (3, 11)
OLDEST_POSTGRES: Final = 15
MOST_SKEW: Final = timedelta(seconds=2)
LATE: Final = timedelta(minutes=2)
"""How long a due mailbox may wait before it counts as forgotten."""
_SHARED: Final = stat.S_IRWXG | stat.S_IRWXO


class Verdict(StrEnum):
    """``skipped``: what it stands on failed already, or is not ours to see."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, what was found, and the way on where it failed."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


@click.command()
@pass_cli
def doctor(cli: Cli) -> None:
    """Check the whole set-up and say what to mend. Exits with 1 if anything failed."""
    checks = list(examine(cli))
    if cli.as_json:
        cli.table([_row(check) for check in checks], [], "")
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            click.echo(f"{check.verdict.upper():<7}  {check.name:<{width}}  {check.found}")
            if check.remedy:
                click.echo(f"{'':<7}  {'':<{width}}  -> {check.remedy}")
    if any(check.verdict is Verdict.FAILED for check in checks):
        sys.exit(1)


def examine(cli: Cli) -> Iterator[Check]:
    """Every check, in the order in which one stands on another."""
    yield _python()
    settings = cli.settings
    yield ok("settings", f"read; home {settings.home}")
    if settings.staging_address is not None:
        yield ok("staging mode", f"on: all outgoing mail goes to {settings.staging_address} only")
    reachable = yield from _guarded("database", lambda: _database(cli.db))
    if reachable:
        migrated = yield from _guarded("migrations", lambda: _migrations(cli.db))
        with cli.db.begin() as session:
            yield _durable(session)
            yield _clock(session)
    else:
        migrated = False
        yield skipped("migrations", "no database")
    yield from _guarded("broker", lambda: _broker(settings))
    yield from _guarded("key ring", lambda: _key_ring(settings))
    if _loads(settings) and migrated:
        yield from _guarded("sealed passwords", lambda: _secrets(cli.runtime))
    else:
        yield skipped("sealed passwords", "needs the database and the key ring")
    if migrated:
        with cli.db.begin() as session:
            yield _at_work(session)
            yield _sending(session, settings)
    else:
        yield skipped("worker and beat", "needs the database")


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, Verdict.OK, found)


def failed(name: str, found: str, remedy: str) -> Check:
    """Something is to be mended."""
    return Check(name, Verdict.FAILED, found, remedy)


def skipped(name: str, why: str) -> Check:
    """Could not be looked at."""
    return Check(name, Verdict.SKIPPED, why)


def _guarded(name: str, look: Callable[[], Check]) -> Generator[Check, None, bool]:
    """Yield one check; an error of ours is its failure. Returns whether it is well."""
    try:
        check = look()
    except MailwrightError as error:
        said, _, remedy = str(error).partition(". ")
        check = failed(name, said.rstrip("."), remedy or "Mend that and run `mailwright doctor` again.")
    yield check
    return check.verdict is Verdict.OK


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < OLDEST_PYTHON:
        return failed("Python", version, "Use Python 3.11 or newer.")
    return ok("Python", version)


def _database(db: Database) -> Check:
    with db.begin() as session:
        number = int(session.execute(text("SHOW server_version_num")).scalar_one())
    if number // 10_000 < OLDEST_POSTGRES:
        return failed("database", f"Postgres {number // 10_000}", f"Use Postgres {OLDEST_POSTGRES} or newer.")
    return ok("database", f"Postgres {number // 10_000}.{number % 10_000}, reachable")


def _migrations(db: Database) -> Check:
    current, head = migrations.current(db.engine), migrations.head()
    if current != head:
        found = f"at {current or 'none'}, this version wants {head}"
        return failed("migrations", found, "Run `mailwright db upgrade`.")
    return ok("migrations", f"at {head}")


def _durable(session: Session) -> Check:
    """What was accepted must survive a power cut: both settings off the safe side lose commits."""
    settings = {
        name: session.execute(text("SELECT current_setting(:name)"), {"name": name}).scalar_one()
        for name in ("synchronous_commit", "fsync", "full_page_writes")
    }
    unsafe = [name for name, value in settings.items() if value == "off"]
    if unsafe:
        return failed(
            "durability",
            ", ".join(f"{name} is off" for name in unsafe),
            "Turn on in postgresql.conf (or for the role): without it accepted mail can be lost.",
        )
    return ok("durability", ", ".join(f"{name} {value}" for name, value in settings.items()))


def _clock(session: Session) -> Check:
    before = datetime.now(UTC)
    theirs: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    after = datetime.now(UTC)
    skew = max(before - theirs, theirs - after, timedelta(0))
    if skew > MOST_SKEW:
        return failed(
            "clock",
            f"{skew.total_seconds():.1f} s apart from the database's",
            "Set both machines' clocks by NTP.",
        )
    return ok("clock", "agrees with the database's")


def _broker(settings: Settings) -> Check:
    client = redis.Redis.from_url(
        redis_url(settings.require_broker_url()), socket_timeout=5, socket_connect_timeout=5
    )
    try:
        server: dict[str, Any] = dict(client.info())
    except (redis.RedisError, OSError) as error:
        return failed(
            "broker",
            f"not reachable ({type(error).__name__})",
            "Start it (`mailwright up` for the embedded one) or check MAILWRIGHT_BROKER_URL.",
        )
    finally:
        client.close()
    name = "Valkey" if "valkey_version" in server else "Redis"
    version = server.get("valkey_version", server.get("redis_version", ""))
    policy = server.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return failed(
            "broker",
            f"{name} {version}, maxmemory-policy {policy}",
            "Set maxmemory-policy noeviction: a broker that evicts keys loses tasks.",
        )
    return ok("broker", f"{name} {version}, reachable, {policy}")


def _loads(settings: Settings) -> bool:
    try:
        load_key_ring(settings)
    except MailwrightError:
        return False
    return True


def _key_ring(settings: Settings) -> Check:
    ring = load_key_ring(settings)
    count = f"{len(ring.keys)} keys" if len(ring.keys) > 1 else "1 key"
    if ring.path is None:
        return ok("key ring", f"{count} in MAILWRIGHT_KEY_RING")
    mode = stat.S_IMODE(ring.path.stat().st_mode)
    if mode & _SHARED:
        return failed(
            "key ring", f"{ring.path} is open to others (mode {mode:04o})", f"Run: chmod 600 {ring.path}"
        )
    return ok("key ring", f"{count} in {ring.path}, mode {mode:04o}")


def _secrets(runtime: Runtime) -> Check:
    with runtime.db.begin() as session:
        found = rotation.check_openable(session, runtime)
    if found.opened < found.total:
        return failed(
            "sealed passwords",
            f"{found.total - found.opened} of {found.total} do not open, such as {', '.join(found.failed)}",
            "Restore the keys they were sealed under, or store them again: mailwright mailbox edit "
            "ADDRESS --password-stdin",
        )
    return ok("sealed passwords", f"all {found.total} open")


def _at_work(session: Session) -> Check:
    """Work claimed lately is what proves worker, beat and broker together."""
    row = session.execute(
        text("""
            SELECT count(*) AS mailboxes, max(last_started_at) AS claimed_at,
                   count(*) FILTER (WHERE next_poll_at < now() - :late AND lease_until IS NULL) AS late
            FROM mailwright.schedule WHERE enabled
        """),
        {"late": LATE},
    ).one()
    if row.mailboxes == 0:
        return skipped("worker and beat", "there is no mailbox to work on yet")
    lately = "not yet" if row.claimed_at is None else f"last at {row.claimed_at:%Y-%m-%d %H:%M:%S} UTC"
    if row.late and (row.claimed_at is None or datetime.now(UTC) - row.claimed_at > LATE):
        return failed(
            "worker and beat",
            f"{row.late} of {row.mailboxes} mailboxes wait; taken by a worker: {lately}",
            "Start both: `mailwright up`, or `mailwright worker` and `mailwright beat`.",
        )
    return ok(
        "worker and beat", f"mailboxes taken by a worker: {lately}; {row.late} of {row.mailboxes} overdue"
    )


def _sending(session: Session, settings: Settings) -> Check:
    held = outbound.sending_held(session, settings)
    if held is None:
        return ok("sending", "not held back")
    return failed(
        "sending", f"held back. {held}", "see Restoring in docs/operations.md; mailwright outbox release"
    )


def _row(check: Check) -> dict[str, Any]:
    row = {"check": check.name, "verdict": check.verdict.value, "found": check.found}
    return row | ({"remedy": check.remedy} if check.remedy else {})
