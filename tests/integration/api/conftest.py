"""The HTTP API on a socket, over the test's database, with a mailbox that sends."""

import threading
from collections.abc import Iterator

import pytest

from config.settings import Settings
from lab.http_door import HttpDoor, add_key, served
from lab.world import Ports, add_mailbox, add_provider
from tasks.runtime import Runtime

ADDRESS = "anna@test.example"


@pytest.fixture
def mailbox(runtime: Runtime) -> int:
    """A mailbox that sends; nobody serves its port."""
    return add_mailbox(runtime, add_provider(runtime, Ports(smtp=9), max_recipients=3), ADDRESS, "secret")


@pytest.fixture
def rung() -> threading.Event:
    """Set once the dispatcher was woken."""
    return threading.Event()


@pytest.fixture
def port(settings: Settings, rung: threading.Event) -> Iterator[int]:
    """Where the API listens."""
    with served(settings, rung.set) as port:
        yield port


@pytest.fixture
def api(port: int, runtime: Runtime) -> Iterator[HttpDoor]:
    """A client with the administrator's key, for everything."""
    client = HttpDoor(port, add_key(runtime.db))
    yield client
    client.close()
