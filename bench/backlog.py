"""What a claim costs: with a million messages queued against ten thousand, and behind an old snapshot.

Ours is the claim as dispatch makes it: a lane is taken, twenty messages at a time are claimed, which only
reads, and taken out of the queue by their keys, as arming does, and after a hundred claims the lane is given
back; all that is timed, on Postgres with fsync and synchronous_commit on. That they are moved on to sent, as
a delivery does, is not. A *turn* is the other end: a lane taken for one claim and given back. All messages
are one mailbox's, so that what is searched is as large as the queue.

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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
TURNS: Final = 15
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

    def ours(self, claims: int) -> float:
        """Milliseconds of a claim, a share of the lane's turn included; what is claimed is sent, untimed."""
        began, untimed = time.perf_counter(), 0.0
        with psycopg.connect(self.url) as connection:
            lane, place = self.lane(), Place()
            for _ in range(claims):
                items, _, _ = store.claim(self.runtime.db, lane, self.route, BATCH, place)
                ids = [item.id for item in items]
                connection.execute(ARM, [lane.token, ids])
                connection.commit()
                place.out_of_hand(ids)
                if len(items) != BATCH:
                    raise SystemExit(f"{len(items)} messages in a claim of {BATCH}")
                paused = time.perf_counter()
                connection.execute(SENT, [ids])
                connection.commit()
                untimed += time.perf_counter() - paused
            store.release(self.runtime.db, lane)
        return 1000 * (time.perf_counter() - began - untimed) / claims

    def turn(self) -> float:
        """Milliseconds of a lane's turn of one claim."""
        return self.ours(1)

    def lane(self) -> store.Lane:
        """The mailbox's lane."""
        lane = store.claim_lane(self.runtime.db, self.runtime.owner, 600, 1)
        if lane is None:
            raise SystemExit("no lane is due")
        return lane

    def theirs(self, claims: int) -> float:
        """The same of the peer."""
        took = 0.0
        with psycopg.connect(self.url) as connection:
            for _ in range(claims):
                began = time.perf_counter()
                rows = connection.execute(PEER_CLAIM, {"mailbox": self.mailbox, "batch": BATCH}).fetchall()
                connection.commit()
                took += time.perf_counter() - began
                connection.execute(
                    "UPDATE peer SET state = 'sent' WHERE id = ANY(%s)", [[r[0] for r in rows]]
                )
                connection.commit()
        return 1000 * took / claims

    def finish(self, count: int) -> None:
        """Send ``count`` messages, through every state of a delivery."""
        for _ in range(0, count, LOT):
            lane = self.lane()
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


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds: of a claim the mean, in which dear ones count, the middle one of three runs; of a turn
    the middle one of many."""

    ours: float
    turn: float
    peer: float

    @classmethod
    def of(cls, queue: Queue) -> "Cost":
        """Measure it now."""
        return cls(
            statistics.median(queue.ours(CLAIMS) for _ in range(RUNS)),
            statistics.median(queue.turn() for _ in range(TURNS)),
            statistics.median(queue.theirs(CLAIMS) for _ in range(RUNS)),
        )

    def told(self) -> str:
        """For people."""
        return f"ours {self.ours:.3f} ms a claim, {self.turn:.3f} ms a turn; the peer {self.peer:.3f} ms"


def main() -> None:
    """Time claims by size of the queue, then behind an old snapshot; the worse ratio is in the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--finished", type=int, default=FINISHED)
    wanted = parser.parse_args()
    costs: list[tuple[int, Cost]] = []
    with tempfile.TemporaryDirectory(prefix="mailwright-bench-") as directory, ExitStack() as opened:
        postgres, valkey = Postgres(Path(directory)), Valkey(Path(directory))
        for server in (postgres, valkey):
            opened.callback(server.discard)
            server.start()
        for size in sorted({size for size in SIZES if size < wanted.largest} | {wanted.largest}):
            with queue(postgres, valkey.url, f"bench_{size}") as each:
                each.fill(size)
                each.ours(20)
                costs.append((size, Cost.of(each)))
                print(f"{size} queued: {costs[-1][1].told()}", flush=True)
        with queue(postgres, valkey.url, "bench_snapshot") as each:
            each.fill(wanted.finished + 60_000)
            each.ours(20)
            before = Cost.of(each)
            with each.old_snapshot():
                each.finish(wanted.finished)
                behind = Cost.of(each)
        print(f"before the snapshot: {before.told()}")
        print(f"behind an old snapshot and {wanted.finished} finished: {behind.told()}")
    small, large = costs[0][1], costs[-1][1]
    ratios = {
        "ratio_queued": large.ours / small.ours,
        "ratio_queued_turn": large.turn / small.turn,
        "ratio_snapshot": behind.ours / before.ours,
        "ratio_snapshot_turn": behind.turn / before.turn,
    }
    result = {
        "name": "backlog",
        "ours": round(max(large.ours, behind.ours), 3),
        "peer": round(max(large.peer, behind.peer), 3),
        "ratio": round(max(ratios.values()), 2),
        **{name: round(ratio, 2) for name, ratio in ratios.items()},
        "unit": "ms a claim; the ratio is the large case to the small",
        "growth": [[size, round(cost.ours, 3)] for size, cost in costs],
        "setup": {
            "claims": f"the mean of {CLAIMS} under one lease, the middle one of {RUNS} runs",
            "turn": f"a lane taken for one claim and given back, the middle one of {TURNS}",
            "batch": BATCH,
            "finished_behind_the_snapshot": wanted.finished,
            "cores": os.cpu_count(),
            "ours": "lane taken, claims, their rows armed, lane given back, commits included; one mailbox",
            "peer": "SELECT ... FOR UPDATE SKIP LOCKED from the head, same index, same history",
            "postgres": "fsync and synchronous_commit on",
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
