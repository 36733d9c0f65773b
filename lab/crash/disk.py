"""A disk of its own for Postgres, small enough to be filled: a tmpfs, which only root can mount."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from worker.stack import Postgres
from worker.stack.place import known_data_directory

ROOM: Final = 96 * 2**20
"""Bytes beside what the data takes when it moves in: some segments of WAL."""


def mountable() -> bool:
    """Whether a small disk can be mounted here: by root, and where containers do not forbid it."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory(prefix="mailwright-disk-") as place:
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", place], check=True)
        return done.returncode == 0


class Disk:
    """What Postgres lies on."""

    def __init__(self, path: Path) -> None:
        self._filler = path / "filler"

    def fill(self) -> None:
        """Take every free block."""
        with self._filler.open("ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"\0" * 2**16)
            except OSError:  # it is full
                return

    def make_room(self) -> None:
        """Give the blocks back."""
        self._filler.unlink()


@contextmanager
def small_disk(postgres: Postgres, directory: Path) -> Iterator[Disk]:
    """Postgres' data, moved to a small disk for the block and back again; it restarts both times."""
    root = known_data_directory(directory)
    assert root is not None, "Postgres has not been started yet"
    data, aside = root / "postgres", root / "postgres.aside"
    postgres.stop()
    data.rename(aside)
    status = aside.stat()
    data.mkdir()
    options = f"size={_size(aside) + ROOM},mode=0700,uid={status.st_uid},gid={status.st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(data)], check=True)
    try:
        _copy(aside, data)
        postgres.start()
        yield Disk(data)
    finally:
        postgres.stop()
        shutil.rmtree(aside)
        _copy(data, aside)
        subprocess.run(["umount", str(data)], check=True)
        data.rmdir()
        aside.rename(data)
    postgres.start()


def _copy(source: Path, target: Path) -> None:
    """With owners and permissions."""
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def _size(directory: Path) -> int:
    """Bytes of the blocks that a tree takes."""
    return sum(
        os.lstat(os.path.join(place, name)).st_blocks * 512
        for place, folders, files in os.walk(directory)
        for name in (*folders, *files)
    )
