"""What a set of processes leaves behind: themselves, their children, the ports they listen on.

The machine may be busy with other things, so only what was seen to be theirs is looked for again.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"
_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")


@dataclass(frozen=True, slots=True)
class Traces:
    """Processes as (id, time of start), and listening sockets as inode to port: neither is given twice."""

    processes: frozenset[tuple[int, int]] = frozenset()
    sockets: frozenset[tuple[int, int]] = frozenset()

    def left(self) -> list[str]:
        """Which of them are still there, in words; none where there is no /proc."""
        alive = {(pid, started) for pid, (_, started) in _processes().items()}
        return [
            *(f"process {pid}" for pid, started in sorted(self.processes) if (pid, started) in alive),
            *(f"port {port}" for inode, port in sorted(self.sockets & frozenset(_listening().items()))),
        ]


def traces_of(pids: Iterable[int]) -> Traces:
    """What these processes and all their descendants are and listen on now, as far as we may see."""
    known = _processes()
    ours = {pid for pid in pids if pid in known}
    while more := {pid for pid, (parent, _) in known.items() if parent in ours} - ours:
        ours |= more
    listening = _listening()
    return Traces(
        frozenset((pid, known[pid][1]) for pid in ours),
        frozenset((inode, listening[inode]) for pid in ours for inode in _sockets(pid) if inode in listening),
    )


def _processes() -> dict[int, tuple[int, int]]:
    """Living processes: id to (id of the parent, time of start in ticks since the machine's)."""
    found = {}
    if Path("/proc/self/stat").exists():
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with suppress(OSError):  # it ended between the listing and the look
                    fields = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
                    if fields[0] not in "ZX":
                        found[int(entry.name)] = (int(fields[1]), int(fields[19]))
    return found


def _listening() -> dict[int, int]:
    """Inode of each listening TCP socket to its port."""
    found = {}
    for table in _TABLES:
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN:
                    found[int(fields[9])] = int(fields[1].rpartition(":")[2], 16)
    return found


def _sockets(pid: int) -> set[int]:
    found = set()
    with suppress(OSError):  # gone, or not ours to look at
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
    return found
