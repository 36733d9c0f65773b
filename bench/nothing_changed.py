"""Mailboxes in which nothing changed, polled ten times each, with 1 folder and with 12.

Ours is the whole path: beat, two Celery workers, claims in Postgres, sessions that rest, STATUS of every
folder, the schedule written back with fsync and synchronous_commit on; while it runs, flags change in
some mailboxes, and all of them must be found. The peer is IMAPClient with a new connection for each
poll, 8 threads, the same STATUS, and nothing stored.
"""

import argparse
import json
import statistics
import time
from typing import Any

from imapclient import IMAPClient

from bench.polling import PASSWORD, Service, each, mail_server, poll_by_peer, service, users
from lab.servers.dovecot import Dovecot

POLLS = 10
FLAGGED = 20
CONDITION = "SELECT count(*) = :wanted FROM ({events}) AS e WHERE type = 'message.flags_changed'"
EVENTS = "SELECT type FROM mailwright.events UNION ALL SELECT type FROM mailwright.events_pending"


def run_ours(running: Service, dovecot: Dovecot, found_before: int) -> tuple[float, float]:
    """Polls a second and CPU milliseconds a poll of one run; flags change during it and are found."""
    first, cpu, began = running.polls(), running.cpu(), time.perf_counter()
    changed = users(running.mailboxes)[:: max(1, running.mailboxes // FLAGGED)][:FLAGGED]
    for user in changed:
        with IMAPClient("127.0.0.1", dovecot.imap_port, ssl=False) as client:
            client.login(user, PASSWORD)
            client.select_folder("INBOX")
            uid = client.search()[0]
            seen = b"\\Flagged" in client.get_flags([uid])[uid]
            (client.remove_flags if seen else client.add_flags)([uid], [b"\\Flagged"])
    while (polls := running.polls() - first) < POLLS * running.mailboxes:
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    used = running.cpu() - cpu
    running.wait(CONDITION.format(events=EVENTS), wanted=found_before + len(changed))
    return polls / seconds, used / polls * 1000


def measure(mailboxes: int, folder_count: int, runs: int) -> dict[str, Any]:
    """Medians of alternating runs."""
    ours, cpu, peer = [], [], []
    with (
        mail_server(mailboxes, folder_count) as dovecot,
        service(dovecot, mailboxes, folder_count) as running,
    ):
        found = 0
        for number in range(runs):
            rate, used = run_ours(running, dovecot, found)
            found += min(FLAGGED, mailboxes)
            ours.append(rate)
            cpu.append(used)
            for worker in running.workers:
                worker.send_signal(19)
            peer.append(mailboxes / each(mailboxes, lambda user: poll_by_peer(dovecot, user, folder_count)))
            for worker in running.workers:
                worker.send_signal(18)
            print(
                f"{mailboxes} mailboxes, {folder_count} folders, run {number + 1}: "
                f"ours {ours[-1]:,.0f}/s ({used:.2f} ms of CPU a poll), IMAPClient {peer[-1]:,.0f}/s",
                flush=True,
            )
            running.wait(
                "SELECT bool_and(next_poll_at < now()) OR count(lease_until) > 0 FROM mailwright.schedule"
            )
        memory = running.peak_mb()
    return {
        "ours": round(statistics.median(ours), 1),
        "peer": round(statistics.median(peer), 1),
        "ratio": round(statistics.median(mine / theirs for mine, theirs in zip(ours, peer, strict=True)), 2),
        "cpu_ms": round(statistics.median(cpu), 3),
        "peak_mb": round(memory, 1),
    }


def main() -> None:
    """Run, and print one JSON line last."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mailboxes", type=int, default=1000)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--no-growth", action="store_true", help="only the full size with one folder")
    chosen = options.parse_args()
    growth = []
    many: dict[str, Any] = {}
    if not chosen.no_growth:
        for part in (4, 2):
            size = chosen.mailboxes // part
            growth.append([size, measure(size, 1, 1)["ours"]])
        many = measure(chosen.mailboxes, 12, chosen.runs)
    one = measure(chosen.mailboxes, 1, chosen.runs)
    growth.append([chosen.mailboxes, one["ours"]])
    result = {
        "name": "nothing_changed",
        "ours": one["ours"],
        "peer": one["peer"],
        "ratio": one["ratio"],
        "unit": "polls/s",
        "cpu_ms": one["cpu_ms"],
        "peak_mb": one["peak_mb"],
        "folders_12": many,
        "growth": growth,
        "setup": {
            "mailboxes": chosen.mailboxes,
            "polls_each": POLLS,
            "runs": chosen.runs,
            "workers": 2,
            "cores": 2,
            "peer": "IMAPClient, a connection a poll, 8 threads",
            "server": "Dovecot on loopback, plain",
            "postgres": "fsync and synchronous_commit on",
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
