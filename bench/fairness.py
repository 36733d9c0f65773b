"""Who waits for whom: small mailboxes beside a crowded one, and a quick server beside a tarpit.

In the first case one mailbox has 50,000 messages queued, and workers send them; then 50 others of the same
provider get one message each, ten a second. In the second, 50 mailboxes of a provider whose server drips each
answer have mail, and 50 of another provider get one message each, likewise. Told is how long those waited, by
Postgres's clock, from the message's acceptance to its outcome stored: the whole path through beat's tick,
Celery workers and SMTP, fsync and synchronous_commit on. The peer is django-post_office, which has one queue,
first come first served: what is queued last waits for all before it. Its crowd is a tenth of ours, 5,000
messages, as its wait grows with the queue; told is how long its last one waited, from its enqueue on.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import create_engine, text

from bench.outbound import AS_IT_COMES, AT_ONCE, BODY, RECIPIENT, SUBJECT, Servers, run_peer, servers, service
from lab import apt
from lab.servers.smtp_faults import Drip, FaultySmtp
from lab.world import Ports, add_mailboxes, add_provider
from schema import migrations
from tasks.runtime import Runtime

SIZES: Final = (5_000, 20_000, 50_000)
SMALL: Final = 50
CONCURRENCY: Final = 8
"""Tasks at once of each of the two workers: the default."""
PATIENCE: Final = 120.0
CROWD: Final = "crowd@bench.example"
FEW: Final = [f"few-{number}@bench.example" for number in range(SMALL)]
STUCK: Final = [f"stuck-{number}@bench.example" for number in range(SMALL)]
MESSAGE: Final = json.dumps({"to": [RECIPIENT], "subject": SUBJECT, "text": BODY})
PEER_CROWD: Final = 5_000

ENQUEUE: Final = """
    SELECT mailwright.enqueue(:mailbox, cast(:message AS jsonb)) FROM generate_series(1, :count)
"""
WAITED: Final = """
    SELECT extract(epoch FROM o.ended_at - o.created_at) FROM mailwright.outbox AS o
    JOIN mailwright.mailboxes AS m ON m.id = o.mailbox_id
    WHERE m.address = ANY(:few) AND o.state = 'sent'
"""


def waits(on: Servers, add: Callable[[Runtime], None], queued: dict[str, int]) -> list[float]:
    """How long each of the `FEW` waited, in seconds, beside what others have ``queued``."""
    with on.database("bench_fairness") as url:
        engine = create_engine(url)
        migrations.upgrade(engine)

        def enqueue(mailbox: str, count: int) -> None:
            for start in range(0, count, AT_ONCE):
                given = {"mailbox": mailbox, "message": MESSAGE, "count": min(AT_ONCE, count - start)}
                with engine.begin() as connection:
                    connection.execute(text(ENQUEUE), given)

        with service(on, url, add, CONCURRENCY):
            for mailbox, count in queued.items():
                enqueue(mailbox, count)
            for mailbox in FEW:
                enqueue(mailbox, 1)
                time.sleep(0.1)
            deadline, found = time.monotonic() + PATIENCE, list[float]()
            while len(found) < SMALL:
                if time.monotonic() > deadline:
                    raise SystemExit(f"only {len(found)} of {SMALL} were sent within {PATIENCE:g} s")
                time.sleep(0.2)
                with engine.connect() as connection:
                    found = [float(row[0]) for row in connection.execute(text(WAITED), {"few": FEW})]
            with engine.connect() as connection:
                left = connection.execute(
                    text("SELECT count(*) FROM mailwright.outbox WHERE state IN ('queued', 'armed')")
                ).scalar_one()
            print(
                f"{sum(queued.values())} queued by others, {left} left of them at the end: {told(found)}",
                flush=True,
            )
        engine.dispose()
    return found


def crowded(on: Servers, size: int) -> list[float]:
    """Beside one mailbox with ``size`` messages."""

    def add(runtime: Runtime) -> None:
        provider = add_provider(runtime, Ports(smtp=on.port), sent_copy="none")
        add_mailboxes(runtime, provider, [CROWD, *FEW], "")

    return waits(on, add, {CROWD: size})


def beside_a_tarpit(on: Servers) -> list[float]:
    """Beside 50 mailboxes of a server that drips."""
    with FaultySmtp({"mail": Drip(0.5)}, auth="") as tarpit:

        def add(runtime: Runtime) -> None:
            quick = add_provider(runtime, Ports(smtp=on.port), "Quick", sent_copy="none")
            add_mailboxes(runtime, quick, FEW, "")
            ports = Ports(smtp=tarpit.port, host="localhost")
            add_mailboxes(runtime, add_provider(runtime, ports, "Tarpit", sent_copy="none"), STUCK, "")

        return waits(on, add, dict.fromkeys(STUCK, 1))


def percentile(seconds: list[float], part: float) -> float:
    """The nearest-rank percentile."""
    return sorted(seconds)[max(0, math.ceil(part * len(seconds)) - 1)]


def told(seconds: list[float]) -> str:
    """For people."""
    return f"p50 {statistics.median(seconds):.2f} s, p99 {percentile(seconds, 0.99):.2f} s"


def main() -> None:
    """Measure both cases, the first at three sizes, and print the figures as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    wanted = parser.parse_args()
    apt.ensure_mail_servers()
    growth: list[list[Any]] = []
    with servers() as on:
        for size in sorted({size for size in SIZES if size < wanted.largest} | {wanted.largest}):
            crowd = percentile(crowded(on, size), 0.99)
            growth.append([size, round(crowd, 3)])
        tarpit = percentile(beside_a_tarpit(on), 0.99)
        _, theirs = run_peer(on, PEER_CROWD, AS_IT_COMES)
    ours = max(crowd, tarpit)
    result = {
        "name": "fairness",
        "ours": round(ours, 3),
        "peer": round(theirs, 3),
        "ratio": round(theirs / ours, 2),
        "unit": "s of waiting, p99",
        "p99_s": round(ours, 3),
        "crowd_p99_s": round(crowd, 3),
        "tarpit_p99_s": round(tarpit, 3),
        "growth": growth,
        "setup": {
            "crowd": wanted.largest,
            "small": f"{SMALL} mailboxes with one message each, ten a second",
            "tarpit": f"{len(STUCK)} mailboxes whose server drips a byte every half second",
            "cores": os.cpu_count(),
            "ours": f"SQL door, 2 workers of {CONCURRENCY} tasks, beat, relay; a provider's defaults",
            "peer": f"django-post_office as it comes: the last of {PEER_CROWD} in its one queue",
            "postgres": "fsync and synchronous_commit on",
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
