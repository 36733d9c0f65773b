"""Memory stays flat with mailbox size."""

import os
import subprocess
import sys
from pathlib import Path

from config.settings import Settings
from tests.mail.sync.conftest import Follow
from tests.mail.sync.odd_imap import mails

FEW, MANY = 1_000, 9_000
MOST_GROWTH = 30 * 1024  # KiB


def most_memory(settings: Settings, *arguments: str) -> int:
    """KiB that a process of its own had at most while it synced what is due."""
    assert settings.database_url is not None
    assert settings.key_ring is not None
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("measure_memory.py")), *arguments],
        env={
            **os.environ,
            "MAILWRIGHT_HOME": str(settings.home),
            "MAILWRIGHT_DATABASE_URL": settings.database_url.get_secret_value(),
            "MAILWRIGHT_KEY_RING": settings.key_ring.get_secret_value(),
            "MAILWRIGHT_POLL_MIN_SECONDS": "3600",
            "MAILWRIGHT_POLL_MAX_SECONDS": "3600",
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "MALLOC_ARENA_MAX": "1",  # as a worker has it
            "MALLOC_MMAP_THRESHOLD_": str(256 * 1024),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


def test_memory_does_not_grow_with_the_folder(follow: Follow, settings: Settings) -> None:
    mailbox = follow(mails(FEW))
    small = most_memory(settings)
    mailbox.server.folders[b"INBOX"] |= dict(enumerate(mails(MANY, first=FEW + 1), start=FEW + 1))
    mailbox.rows("UPDATE mailwright.schedule SET next_poll_at = now() - interval '1 day'")

    large = most_memory(settings)

    assert mailbox.messages() == FEW + MANY
    assert large - small < MOST_GROWTH
