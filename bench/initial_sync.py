"""The first sync of a mailbox: 10,000 messages of mean 26 KB, beside mbsync.

Ours is the whole path: beat's tick, a Celery worker's claim, IMAP from Dovecot on loopback, every message
read, rows and raw bytes committed in Postgres with fsync and synchronous_commit on. The peer is
``mbsync`` with its default ``FSync yes`` into a Maildir. Both start from empty, in alternating runs;
the clock runs from the mailbox's row (mbsync: its start) to the last message stored.
"""

import argparse
import json

from bench.first_sync import alternate, result, world
from lab.corpus import generate


def main() -> None:
    """Run, and print one JSON line last."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--runs", type=int, default=5)
    chosen = options.parse_args()
    growth = []
    for part in (4, 2):
        with world(generate(chosen.count // part, seed=1)) as where:
            growth.append([where.count, round(where.count / where.ours(0).seconds, 1)])
    with world(generate(chosen.count, seed=1)) as where:
        where.peer()  # warms the server's files for both
        ours, peer = alternate(where, chosen.runs)
        line = result("initial_sync", where, ours, peer, growth)
    line["growth"] = [*growth, [chosen.count, line["ours"]]]
    print(json.dumps(line))


if __name__ == "__main__":
    main()
