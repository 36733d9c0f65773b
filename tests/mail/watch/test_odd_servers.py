"""Servers that say goodbye, fall silent, cannot idle or refuse: a session ends, the watching goes on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from lab.ports import wait_until
from lab.servers.imap_faults import PASSWORD
from lab.world import Ports, add_mailbox, add_provider
from tasks.runtime import Runtime
from tests.mail.watch.conftest import SOON, Start
from tests.mail.watch.idling_imap import IdlingImap

Rows = Callable[..., list[Any]]
Watched = Callable[..., IdlingImap]
CONNECTED = "SELECT count(connected_at) = :n FROM mailwright.watches"


@pytest.fixture
def watched(runtime: Runtime, rows: Rows) -> Iterator[Watched]:
    """A server with mailboxes on it that were logged in to once, and are not due."""
    with ExitStack() as stack:

        def make(
            count: int = 1, provider: dict[str, object] | None = None, password: str = PASSWORD, **faults: Any
        ) -> IdlingImap:
            server = stack.enter_context(IdlingImap(**faults))
            made = add_provider(runtime, Ports(imap=server.port), **(provider or {}))
            for number in range(count):
                add_mailbox(runtime, made, f"anna{number}@{made}.example", password)
            rows("UPDATE mailwright.mailboxes SET connected_at = now()")
            rows("UPDATE mailwright.schedule SET next_poll_at = now() + interval '1 day'")
            return server

        yield make


def due(rows: Rows) -> int:
    """How many mailboxes are due; from now on none."""
    return len(
        rows(
            "UPDATE mailwright.schedule SET next_poll_at = now() + interval '1 day' "
            "WHERE next_poll_at <= now() RETURNING mailbox_id"
        )
    )


def wait(ready: Callable[[], bool], what: str) -> None:
    wait_until(ready, SOON, what)


def quiet(rows: Rows, eventually: Callable[..., None]) -> None:
    """Wait for the look that follows each new session, and forget it."""
    eventually(CONNECTED, n=1)
    wait(lambda: due(rows) == 1, "the first look")


@pytest.mark.parametrize("news", [b"* 1 EXISTS\r\n", b"* 1 EXPUNGE\r\n", b"* 1 FETCH (FLAGS (\\Seen))\r\n"])
def test_news_make_the_mailbox_due_and_ring(
    watched: Watched, start: Start, rows: Rows, eventually: Callable[..., None], news: bytes
) -> None:
    server = watched()
    running = start()
    quiet(rows, eventually)
    rung = len(running.rung)
    wait(lambda: bool(server.idling), "an IDLE")

    server.say(b"* OK Still here\r\n")
    server.say(news)

    wait(lambda: due(rows) == 1, "the mailbox to be due")
    assert len(running.rung) == rung + 1


def test_an_idle_is_renewed_and_a_server_that_does_not_answer_is_left(
    watched: Watched, start: Start, rows: Rows, eventually: Callable[..., None]
) -> None:
    server = watched()
    start(watch_renew_seconds=1, imap_timeout_seconds=1)
    eventually(CONNECTED, n=1)
    wait(lambda: server.commands["DONE"] >= 2, "two renewals")
    assert server.sessions == 1

    server.deaf = True
    eventually("SELECT failures = 1 AND last_error LIKE '%no answer%' FROM mailwright.watches")

    server.deaf = False
    eventually("SELECT count(connected_at) = 1 FROM mailwright.watches")
    assert server.sessions >= 2


def test_silence_is_probed_before_the_renewal(watched: Watched, start: Start) -> None:
    server = watched()
    start(watch_probe_seconds=1)

    wait(lambda: server.commands["DONE"] >= 1 and server.commands["IDLE"] >= 2, "a probe")
    assert server.sessions == 1


def test_without_idle_noop_hears_the_news(
    watched: Watched, start: Start, rows: Rows, eventually: Callable[..., None]
) -> None:
    server = watched(idles=False)
    start(watch_noop_seconds=1)
    quiet(rows, eventually)
    server.faults = replace(server.faults, unsolicited=True)

    wait(lambda: due(rows) == 1, "the mailbox to be due")
    assert server.commands["IDLE"] == 0


def test_a_bye_is_followed_by_another_session(
    watched: Watched, start: Start, rows: Rows, eventually: Callable[..., None]
) -> None:
    server = watched()
    start()
    quiet(rows, eventually)
    wait(lambda: bool(server.idling), "an IDLE")

    server.say(b"* BYE Autologout\r\n")

    eventually("SELECT failures = 1 AND watcher IS NULL FROM mailwright.watches")
    quiet(rows, eventually)
    assert server.sessions == 2


def test_refused_credentials_are_counted_once_and_left_to_the_sync(
    watched: Watched, start: Start, rows: Rows, eventually: Callable[..., None]
) -> None:
    server = watched(password="wrong")
    start()
    eventually("SELECT imap_refusals = 1 FROM mailwright.mailboxes")
    eventually("SELECT watcher IS NULL AND failures = 1 FROM mailwright.watches")

    rows("UPDATE mailwright.watches SET retry_at = now()")
    rows("UPDATE mailwright.mailboxes SET imap_retry_at = NULL")
    running = server.sessions
    rows("UPDATE mailwright.mailboxes SET imap_refusals = 1")
    other = watched(count=1, provider={"name": "Other"})
    eventually("SELECT count(connected_at) = 1 FROM mailwright.watches")  # it still claims
    assert server.sessions == running
    assert other.sessions == 1


def test_a_mailbox_that_is_switched_off_is_left(
    watched: Watched, start: Start, rows: Rows, eventually: Callable[..., None]
) -> None:
    server = watched()
    start()
    quiet(rows, eventually)

    rows("UPDATE mailwright.schedule SET enabled = false")

    wait(lambda: server.open_sessions == 0, "the end of the session")
    eventually("SELECT watcher IS NULL FROM mailwright.watches")


def test_an_account_keeps_one_connection_for_the_sync(
    watched: Watched, start: Start, rows: Rows, eventually: Callable[..., None]
) -> None:
    server = watched(count=4, provider={"connections_per_account": 3})
    rows("UPDATE mailwright.schedule SET account = 'shared@127.0.0.1' ")
    start()
    eventually(CONNECTED, n=2)
    other = watched(count=0, provider={"name": "Other"})
    rows("UPDATE mailwright.watches SET retry_at = now()")

    wait(lambda: server.commands["IDLE"] >= 2, "two sessions")
    assert server.open_sessions == 2
    assert other.sessions == 0
