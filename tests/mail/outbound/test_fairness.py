"""Who waits for whom: a server that makes us wait holds up nobody but its own mail."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lab.ports import wait_until
from lab.servers.smtp_faults import Drip, FaultySmtp
from lab.world import Ports, add_mailboxes, add_provider
from tasks import outbound
from tasks.access import SYSTEM
from tasks.runtime import Runtime


def enqueue(runtime: Runtime, address: str) -> None:
    with runtime.db.begin() as session:
        outbound.enqueue(SYSTEM, session, address, {"to": "bob@far.example", "text": "x"})


@contextmanager
def workers(runtime: Runtime, count: int) -> Iterator[None]:
    """Threads that dispatch at every tick, as a worker's do."""

    def work() -> None:
        while not runtime.stopping.wait(0.05):
            outbound.dispatch(SYSTEM, runtime)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        runtime.stopping.set()
        for thread in threads:
            thread.join()


def test_a_tarpit_beside_a_quick_host(runtime: Runtime) -> None:
    """Twelve mailboxes have mail for a server that drips, and it gets two of the eight slots; whoever sends
    by another is served meanwhile."""
    stuck = [f"m{number}@tarpit.example" for number in range(12)]
    few = [f"m{number}@quick.example" for number in range(20)]

    with FaultySmtp({"mail": Drip(0.2)}) as tarpit, FaultySmtp() as quick:
        slow = add_provider(runtime, Ports(smtp=tarpit.port), "Tarpit", smtp_timeout=6, sent_copy="none")
        fast = add_provider(runtime, Ports(smtp=quick.port, host="localhost"), "Quick", sent_copy="none")
        add_mailboxes(runtime, slow, stuck, "secret")
        add_mailboxes(runtime, fast, few, "secret")
        for address in stuck:
            enqueue(runtime, address)
        with workers(runtime, runtime.settings.concurrency):
            wait_until(lambda: tarpit.most_open == 2, 10, "the tarpit to hold its share")
            for address in few:
                enqueue(runtime, address)
            quick.wait_accepted(20, 5)
        assert tarpit.most_open == 2
        assert not tarpit.accepted

    with runtime.db.begin() as session:
        (waiting,) = outbound.listing(SYSTEM, session, mailbox=stuck[-1], limit=1)
        told = outbound.why(SYSTEM, session, waiting.id, runtime.settings)
    assert "127.0.0.1 made us wait for answers" in told.reason
    assert "at most a quarter of a worker's slots" in told.reason
