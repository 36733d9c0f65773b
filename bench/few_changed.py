"""Mailboxes polled ten times each, 1 folder, while one new message comes to 5% of them at each round.

The path and the peer are those of `nothing_changed`. Runs in which nothing comes and runs in which mail comes
alternate in one service; what a changed mailbox costs is the difference of their times, by the number of
changes. The clock of a run ends when all polls are made and all mail is stored.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from imapclient import IMAPClient

from bench.polling import PASSWORD, Service, each, mail_server, poll_by_peer, service, users
from lab.corpus import generate
from lab.servers.dovecot import Dovecot

POLLS = 10
PART = 20  # one mailbox in so many
STORED = "SELECT count(*) FROM mailwright.places"


def run_ours(running: Service, dovecot: Dovecot, rounds: Sequence[Sequence[tuple[str, bytes]]]) -> float:
    """Seconds of a run; each round of mail is delivered when the polls of the last are made."""
    first, stored = running.polls(), int(running.one(STORED))
    began = time.perf_counter()
    for number, mails in enumerate(rounds, start=1):
        for user, mail in mails:
            dovecot.deliver(user, mail)
        while running.polls() - first < number * running.mailboxes:
            time.sleep(0.02)
    running.wait(f"SELECT ({STORED}) = :wanted", wanted=stored + sum(map(len, rounds)))
    return time.perf_counter() - began


def poll_and_fetch(dovecot: Dovecot, user: str) -> None:
    """One poll by the peer that found something: it fetches the newest message."""
    with IMAPClient("127.0.0.1", dovecot.imap_port, ssl=False) as client:
        client.login(user, PASSWORD)
        client.folder_status("INBOX", ["MESSAGES", "UIDNEXT", "UIDVALIDITY", "HIGHESTMODSEQ"])
        client.select_folder("INBOX", readonly=True)
        client.fetch([client.search()[-1]], ["BODY.PEEK[]", "FLAGS", "INTERNALDATE"])


def measure(mailboxes: int, runs: int) -> dict[str, Any]:
    """Medians of alternating runs."""
    everyone = users(mailboxes)
    changing = set(everyone[::PART])
    source, whose = generate(10_000_000, seed=9, mean_size=2_000), cycle(everyone)
    quiet, busy, peer = [], [], []
    with mail_server(mailboxes, 1) as dovecot, service(dovecot, mailboxes, 1) as running:
        for number in range(runs):
            quiet.append(run_ours(running, dovecot, [()] * POLLS))
            rounds = [[(next(whose), next(source)) for _ in range(mailboxes // PART)] for _ in range(POLLS)]
            busy.append(run_ours(running, dovecot, rounds))
            for worker in running.workers:
                worker.send_signal(19)
            peer.append(
                each(
                    mailboxes,
                    lambda user: (
                        poll_and_fetch(dovecot, user) if user in changing else poll_by_peer(dovecot, user, 1)
                    ),
                )
            )
            for worker in running.workers:
                worker.send_signal(18)
            print(
                f"{mailboxes} mailboxes, run {number + 1}: "
                f"{mailboxes * POLLS / quiet[-1]:,.0f} polls/s quiet, "
                f"{mailboxes * POLLS / busy[-1]:,.0f} with mail, IMAPClient {mailboxes / peer[-1]:,.0f}",
                flush=True,
            )
    changes = mailboxes // PART * POLLS
    return {
        "ours": round(mailboxes * POLLS / statistics.median(busy), 1),
        "peer": round(mailboxes / statistics.median(peer), 1),
        "ratio": round(
            statistics.median(theirs * POLLS / mine for mine, theirs in zip(busy, peer, strict=True)),
            2,
        ),
        "ms_per_changed": round(
            statistics.median(b - q for b, q in zip(busy, quiet, strict=True)) / changes * 1000, 2
        ),
        "quiet": round(mailboxes * POLLS / statistics.median(quiet), 1),
    }


def main() -> None:
    """Run, and print one JSON line last."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mailboxes", type=int, default=1000)
    options.add_argument("--runs", type=int, default=5)
    chosen = options.parse_args()
    growth = []
    for part in (4, 2):
        size = chosen.mailboxes // part
        growth.append([size, measure(size, 1)["ours"]])
    full = measure(chosen.mailboxes, chosen.runs)
    growth.append([chosen.mailboxes, full["ours"]])
    setup = {
        "mailboxes": chosen.mailboxes,
        "polls_each": POLLS,
        "changed_a_round": chosen.mailboxes // PART,
        "runs": chosen.runs,
        "workers": 2,
        "cores": 2,
        "peer": "IMAPClient, a connection a poll, 8 threads; fetches what is new",
        "server": "Dovecot on loopback, plain",
        "postgres": "fsync and synchronous_commit on",
    }
    print(json.dumps({"name": "few_changed", "unit": "polls/s", **full, "growth": growth, "setup": setup}))


if __name__ == "__main__":
    main()
