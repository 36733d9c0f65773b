"""Sync one mailbox in this process until it is complete, and print the most memory it had, in KiB."""

import resource
import sys

from config.queues import Lane
from config.settings import load_settings
from tasks import schedule
from tasks.access import SYSTEM
from tasks.runtime import Runtime
from tasks.sync import sync_mailbox


def main() -> None:
    runtime = Runtime.open(load_settings())
    while claims := [*schedule.claim(runtime, Lane.SYNC), *schedule.claim(runtime, Lane.HISTORY)]:
        for claim in claims:
            sync_mailbox(SYSTEM, runtime, claim)
    runtime.close()
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}\n")


main()
