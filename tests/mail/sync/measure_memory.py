"""Sync what is due in this process, several at once, and print the most memory it had, in KiB.

An argument is the most bytes that one of its files may have.
"""

import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from config.queues import Lane
from config.settings import load_settings
from tasks import schedule
from tasks.access import SYSTEM
from tasks.runtime import Runtime
from tasks.sync import sync_mailbox


def main() -> None:
    if sys.argv[1:]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
    runtime = Runtime.open(load_settings())
    while claims := [*schedule.claim(runtime, Lane.SYNC, 8), *schedule.claim(runtime, Lane.HISTORY, 8)]:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(partial(sync_mailbox, SYSTEM, runtime), claims))
    runtime.close()
    lines = (
        Path("/proc/self/status").read_text().splitlines()
    )  # getrusage tells the parent's, if that is more
    sys.stdout.write(next(line.split()[1] for line in lines if line.startswith("VmHWM")) + "\n")


main()
