"""What a killed process left running for a home: known by its own marks, never by a name, and stopped."""

import signal
from pathlib import Path

from worker.stack import postgres, record, valkey


def stop_leftovers(home: Path) -> list[str]:
    """Stop programs, then servers, of an earlier supervisor; the caller holds the home's lock. Returns names.

    A program gets its grace after SIGTERM. Raises `UserError` when a server's sessions do not end.
    """
    known = record.read(home)
    alive = [
        (each.name, each.process, each.grace)
        for each in reversed(known.kept if known is not None else ())
        if not each.server and each.process is not None and each.process.alive
    ]
    for _, process, _ in alive:
        process.send(signal.SIGTERM)
    for _, process, grace in alive:
        if not process.wait(grace):
            process.end((signal.SIGKILL, 10))
    servers = (("valkey", valkey.stop_leftover), ("postgres", postgres.stop_leftover))
    stopped = [name for name, _, _ in alive] + [name for name, stop in servers if stop(home)]
    (home / record.ADDRESSES).unlink(missing_ok=True)
    record.remove(home)
    return stopped
