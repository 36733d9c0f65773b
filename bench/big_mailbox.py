"""A folder of 200,000 small messages and one of 60 MB: how soon the first 1,000 can be read, how long all
take, and how much memory the worker needs, beside mbsync.

The path is that of `initial_sync`. Memory is the highest resident set of the worker process, which must not
grow with the folder: ``growth`` tells it for three sizes, each with the message of 60 MB among them. Runs of
ours and of mbsync alternate.
"""

import argparse
import json
import os
from base64 import encodebytes
from collections.abc import Iterator
from itertools import chain

from bench.first_sync import alternate, result, world
from lab.corpus import small

LARGE = 60 * 2**20


def mails(count: int) -> Iterator[bytes]:
    """Small ones, and a large one in the middle."""
    yield from chain(small(count // 2, seed=5), [large()], small(count - count // 2 - 1, seed=6))


def large() -> bytes:
    """A message of 60 MB: one attachment."""
    head = (
        b"From: anna@bench.example\r\nSubject: large\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: application/octet-stream; name=large.bin\r\n"
        b"Content-Disposition: attachment; filename=large.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    body = encodebytes(os.urandom(LARGE * 3 // 4 * 76 // 78)).replace(b"\n", b"\r\n")
    return head + body


def main() -> None:
    """Run, and print one JSON line last."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=200_000)
    options.add_argument("--runs", type=int, default=5)
    chosen = options.parse_args()
    growth = []
    for part in (10, 4):
        with world(mails(chosen.count // part)) as where:
            run = where.ours(0)
            growth.append([where.count, round(where.count / run.seconds, 1), round(run.peak_mb, 1)])
            print(f"{where.count} messages: {run.seconds:.1f} s, peak {run.peak_mb:.0f} MB", flush=True)
    with world(mails(chosen.count)) as where:
        ours, peer = alternate(where, chosen.runs)
        line = result("big_mailbox", where, ours, peer, growth)
    line["growth"] = [*growth, [chosen.count, line["ours"], line["peak_mb"]]]
    line["total_s"] = round(chosen.count / line["ours"], 1)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
