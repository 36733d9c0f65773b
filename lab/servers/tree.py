"""Where a server keeps its files, and as whom it runs when we are root."""

import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LONGEST: Final = 60
"""Characters; socket names are appended and the kernel takes 107 bytes in all."""


@dataclass(frozen=True, slots=True)
class Account:
    """An operating-system user."""

    name: str
    group: str
    uid: int
    gid: int


def unprivileged() -> Account:
    """``nobody`` when we are root, else ourselves."""
    import grp

    entry = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    return Account(entry.pw_name, grp.getgrgid(entry.pw_gid).gr_name, entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory that is a server's own; ``remove`` deletes it whole."""

    path: Path

    def remove(self) -> None:
        """Delete the tree; nothing happens if it is gone already."""
        shutil.rmtree(self.path, ignore_errors=False) if self.path.exists() else None


def open_tree(name: str, directory: Path | None = None) -> Tree:
    """Make a new directory for a server, inside ``directory`` where that serves.

    It does not serve when its path is too long for sockets or, as root, when other users cannot
    pass through it; then the tree is a temporary one. No permission but the tree's own is set.
    """
    parent = directory if directory is not None and _serves(directory) else None
    path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))
    path.chmod(0o755 if os.geteuid() == 0 else 0o700)
    return Tree(path)


def _serves(directory: Path) -> bool:
    resolved = directory.resolve()
    if len(str(resolved)) > LONGEST:
        return False
    passable = all(step.stat().st_mode & stat.S_IXOTH for step in (resolved, *resolved.parents))
    return passable or os.geteuid() != 0
