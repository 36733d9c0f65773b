"""A database or a broker that is away costs no session, and no news."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from config.settings import Settings
from lab.ports import wait_until
from lab.world import Ports, add_mailbox, add_provider
from schema import migrations
from tasks.runtime import Runtime
from tests.mail.watch.conftest import SOON, Start
from tests.mail.watch.idling_imap import IdlingImap
from worker.stack import Postgres, Valkey
from worker.watcher import BrokerDown, make_ring


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A Postgres that may be stopped."""
    server = Postgres(tmp_path / "own", durable=False)
    server.start()
    try:
        engine = create_engine(server.url())
        migrations.upgrade(engine)
        engine.dispose()
        yield server
    finally:
        server.stop()
        server.discard()


@pytest.fixture
def settings(settings: Settings, own_postgres: Postgres) -> Settings:
    """Settings over it."""
    return Settings.model_validate({**settings.model_dump(), "database_url": own_postgres.url()})


def test_sessions_outlive_the_database_and_news_heard_meanwhile_are_told_later(
    runtime: Runtime, own_postgres: Postgres, start: Start
) -> None:
    def first(statement: str) -> bool:
        with runtime.db.begin() as session:
            row = session.execute(text(statement)).first()
            return bool(row and row[0])

    with IdlingImap() as server:
        provider = add_provider(runtime, Ports(imap=server.port))
        add_mailbox(runtime, provider, "anna@test.example", "secret")
        with runtime.db.begin() as session:
            session.execute(text("UPDATE mailwright.mailboxes SET connected_at = now()"))
        running = start()
        wait_until(lambda: bool(running.rung), SOON, "the look after the login")
        wait_until(lambda: bool(server.idling), SOON, "an IDLE")
        with runtime.db.begin() as session:
            session.execute(text("UPDATE mailwright.schedule SET next_poll_at = now() + interval '1 day'"))

        own_postgres.stop()
        server.say(b"* 1 EXISTS\r\n")
        own_postgres.start()

        wait_until(
            lambda: first("SELECT next_poll_at <= now() FROM mailwright.schedule"), SOON, "the wake-up"
        )
        wait_until(
            lambda: first("SELECT until > now() FROM mailwright.watchers"), SOON, "the lease to be renewed"
        )
        assert first("SELECT connected_at IS NOT NULL FROM mailwright.watches")
        assert server.sessions == 1


def test_a_broker_that_is_away_is_told_and_found_again(tmp_path: Path, settings: Settings) -> None:
    broker = Valkey(tmp_path / "broker")
    broker.start()
    try:
        ring: Callable[[], None] = make_ring(
            settings.model_copy(update={"broker_url": url(broker)}), rest=0.0
        )
        ring()
        broker.stop()
        with pytest.raises(BrokerDown):
            ring()
        broker.start()
        ring()
    finally:
        broker.stop()
        broker.discard()


def url(broker: Valkey) -> SecretStr:
    """As the settings hold it."""
    return SecretStr(broker.url)
