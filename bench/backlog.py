"""What a claim costs: with a million messages queued against ten thousand, and behind an old snapshot.

Ours is the claim as dispatch makes it: a lane is taken once, then twenty messages at a time are claimed,
which only reads, and taken out of the queue by their keys, as arming does; both are timed, on Postgres with
fsync and synchronous_commit on. Then they are moved on to sent, as a delivery does, which is not timed. All
messages are one mailbox's, so that what is searched is as large as the queue.

In the second case another session holds a snapshot open, as a backup does, while 200,000 messages are claimed
and sent: what is over cannot be cleared away then, and who looks for due messages from the head of the queue
steps over all of it at every claim. The peer is who does so: SELECT ... ORDER BY ... FOR UPDATE SKIP LOCKED
on a table of its own with the same index, rows and history.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import create_engine

from config.settings import Settings
from lab.world import Ports, add_mailbox, add_provider
from schema import migrations
from tasks.mailboxes import Protocol, open_route
from tasks.outbound import store
from tasks.outbound.place import Place
from tasks.outbound.sender import BATCH
from tasks.runtime import Runtime
from tasks.secrets import new_key_line
from worker.stack import Postgres, Valkey

SENDER: Final = "anna@bench.example"
SIZES: Final = (10_000, 100_000, 1_000_000)
FINISHED: Final = 200_000
RUNS: Final = 3
CLAIMS: Final = 100
"""Claims that are timed in one run."""
LOT: Final = 20_000
"""Rows that one statement finishes."""

FILL: Final = """
    INSERT INTO mailwright.outbox (mailbox_id, principal, expires_at, request, due_at)
    SELECT %(mailbox)s, 'bench', now() + interval '5 days', jsonb_build_object('to', 'bob@far.example'),
           now() - interval '1 hour' + n * interval '1 ms'
    FROM generate_series(1, %(count)s) AS n
"""
ARM: Final = "UPDATE mailwright.outbox SET state = 'armed', lease_token = %s WHERE id = ANY(%s)"
SENT: Final = """
    UPDATE mailwright.outbox SET state = 'sent', lease_token = NULL, ended_at = now() WHERE id = ANY(%s)
"""
PEER_TABLE: Final = """
    CREATE TABLE peer (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mailbox_id bigint, state text,
                       priority int DEFAULT 0, due_at timestamptz, request jsonb);
    CREATE INDEX ON peer (mailbox_id, priority DESC, due_at, id) WHERE state IN ('queued', 'deferred');
"""


class Queue:
    """One mailbox's queue on a database of its own, and the peer's table beside it."""

    def __init__(self, runtime: Runtime, mailbox: int, url: str) -> None:
        self.runtime = runtime
        self.mailbox = mailbox
        self.url = url
        self.route = open_route(runtime, mailbox, Protocol.SMTP)

    def execute(self, *statements: str, **given: Any) -> int:
        """Run statements in one transaction; rows that the last one touched."""
        with psycopg.connect(self.url) as connection:
            touched = 0
            for statement in statements:
                touched = connection.execute(statement, given or None).rowcount
            return touched

    def fill(self, count: int) -> None:
        """Let ``count`` messages be queued, here and at the peer's, and the planner know of it."""
        self.execute(FILL, mailbox=self.mailbox, count=count)
        self.execute(
            "INSERT INTO peer (mailbox_id, state, due_at, request) "
            "SELECT mailbox_id, state, due_at, request FROM mailwright.outbox ORDER BY id"
        )
        self.execute("UPDATE mailwright.outbox_lanes SET next_due_at = now()")
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE mailwright.outbox")
            connection.execute("VACUUM ANALYZE peer")
            connection.execute("CHECKPOINT")

    def ours(self, claims: int) -> list[float]:
        """Milliseconds of each claim; what is claimed is sent, untimed."""
        lane = store.claim_lane(self.runtime.db, self.runtime.owner, 600, 1)
        if lane is None:
            raise SystemExit("no lane is due")
        took, place = [], Place()
        with psycopg.connect(self.url) as connection:
            for _ in range(claims):
                began = time.perf_counter()
                items, _, _ = store.claim(self.runtime.db, lane, self.route, BATCH, place)
                ids = [item.id for item in items]
                connection.execute(ARM, [lane.token, ids])
                connection.commit()
                took.append(1000 * (time.perf_counter() - began))
                if len(items) != BATCH:
                    raise SystemExit(f"{len(items)} messages in a claim of {BATCH}")
                place.out_of_hand(ids)
                connection.execute(SENT, [ids])
                connection.commit()
        store.release(self.runtime.db, lane)
        return took

    def theirs(self, claims: int) -> list[float]:
        """The same of the peer."""
        took = []
        with psycopg.connect(self.url) as connection:
            for _ in range(claims):
                began = time.perf_counter()
                rows = connection.execute(PEER_CLAIM, {"mailbox": self.mailbox, "batch": BATCH}).fetchall()
                connection.commit()
                took.append(1000 * (time.perf_counter() - began))
                connection.execute(
                    "UPDATE peer SET state = 'sent' WHERE id = ANY(%s)", [[r[0] for r in rows]]
                )
                connection.commit()
        return took

    def finish(self, count: int) -> None:
        """Send ``count`` messages, through every state of a delivery."""
        for _ in range(0, count, LOT):
            lane = store.claim_lane(self.runtime.db, self.runtime.owner, 600, 1)
            if lane is None:
                raise SystemExit("no lane is due")
            items, _, _ = store.claim(self.runtime.db, lane, self.route, LOT, Place())
            with psycopg.connect(self.url) as connection:
                connection.execute(ARM, [lane.token, [item.id for item in items]])
                connection.execute(SENT, [[item.id for item in items]])
            store.release(self.runtime.db, lane)
            self.execute(PEER_FINISH, mailbox=self.mailbox, count=len(items))

    @contextmanager
    def old_snapshot(self) -> Iterator[None]:
        """Another session that looked at the queue long ago, and has not ended."""
        with psycopg.connect(self.url) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            connection.execute("SELECT count(*) FROM mailwright.outbox")
            yield


PEER_CLAIM: Final = """
    UPDATE peer SET state = 'claimed' FROM (
        SELECT id FROM peer
        WHERE mailbox_id = %(mailbox)s AND state IN ('queued', 'deferred') AND due_at <= now()
        ORDER BY priority DESC, due_at, id LIMIT %(batch)s FOR UPDATE SKIP LOCKED
    ) AS due WHERE peer.id = due.id RETURNING peer.id, peer.request
"""
PEER_FINISH: Final = """
    UPDATE peer SET state = 'sent' WHERE id IN (
        SELECT id FROM peer WHERE mailbox_id = %(mailbox)s AND state = 'queued'
        ORDER BY priority DESC, due_at, id LIMIT %(count)s
    )
"""


@contextmanager
def queue(postgres: Postgres, broker: str, name: str) -> Iterator[Queue]:
    """An empty one."""
    with ExitStack() as opened:
        postgres.ensure_database(name)
        url = postgres.url(name)
        engine = create_engine(url)
        migrations.upgrade(engine)
        engine.dispose()
        values = {"database_url": url, "broker_url": broker, "key_ring": new_key_line()}
        runtime = Runtime.open(Settings.model_validate(values))
        opened.callback(runtime.close)
        provider = add_provider(runtime, Ports(smtp=1), sent_copy="none")
        mailbox = add_mailbox(runtime, provider, SENDER, "secret")
        plain = url.replace("postgresql+psycopg://", "postgresql://")
        with psycopg.connect(plain) as connection:
            connection.execute(PEER_TABLE)
        yield Queue(runtime, mailbox, plain)


def cost(measure: Callable[[int], list[float]]) -> float:
    """Milliseconds of a claim: the mean, in which dear ones count; the middle one of three runs."""
    return statistics.median(statistics.fmean(measure(CLAIMS)) for _ in range(RUNS))


def main() -> None:
    """Time claims by size of the queue, then behind an old snapshot; the worse ratio is in the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--finished", type=int, default=FINISHED)
    wanted = parser.parse_args()
    growth, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="mailwright-bench-") as directory, ExitStack() as opened:
        postgres, valkey = Postgres(Path(directory)), Valkey(Path(directory))
        for server in (postgres, valkey):
            opened.callback(server.discard)
            server.start()
        for size in sorted({size for size in SIZES if size < wanted.largest} | {wanted.largest}):
            with queue(postgres, valkey.url, f"bench_{size}") as each:
                each.fill(size)
                each.ours(20)
                growth.append([size, round(cost(each.ours), 3)])
                theirs.append(cost(each.theirs))
                print(f"{size} queued: ours {growth[-1][1]} ms, the peer {theirs[-1]:.3f} ms a claim")
        with queue(postgres, valkey.url, "bench_snapshot") as each:
            each.fill(wanted.finished + 60_000)
            each.ours(20)
            before, peer_before = cost(each.ours), cost(each.theirs)
            with each.old_snapshot():
                each.finish(wanted.finished)
                behind, peer_behind = cost(each.ours), cost(each.theirs)
        print(
            f"behind an old snapshot and {wanted.finished} finished: ours {before:.3f} -> {behind:.3f} ms, "
            f"the peer {peer_before:.3f} -> {peer_behind:.3f} ms"
        )
    ratio_queued, ratio_snapshot = growth[-1][1] / growth[0][1], behind / before
    result = {
        "name": "backlog",
        "ours": round(max(growth[-1][1], behind), 3),
        "peer": round(max(theirs[-1], peer_behind), 3),
        "ratio": round(max(ratio_queued, ratio_snapshot), 2),
        "ratio_queued": round(ratio_queued, 2),
        "ratio_snapshot": round(ratio_snapshot, 2),
        "unit": "ms a claim; the ratio is the large case to the small",
        "growth": growth,
        "setup": {
            "claims": f"the mean of {CLAIMS}, the middle one of {RUNS} runs",
            "batch": BATCH,
            "finished_behind_the_snapshot": wanted.finished,
            "cores": os.cpu_count(),
            "ours": "the claim under a lane's lease and the arming of its rows, one mailbox, commits with it",
            "peer": "SELECT ... FOR UPDATE SKIP LOCKED from the head, same index, same history",
            "postgres": "fsync and synchronous_commit on",
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
