"""What runs for a home, written down, so that another command finds it and a later one finds what was left.

HOME/stack.json   the supervisor and each process it keeps, by pid and start time
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from worker.stack.process import Process

_RECORD: Final = "stack.json"
ADDRESSES: Final = "stack.env"
"""The servers' addresses, as settings, for every other ``mailwright`` command."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One process under supervision; ``process`` is None while it waits for its restart."""

    name: str
    process: Process | None
    restarts: int
    grace: float
    """Seconds it may take to stop."""
    server: bool
    """True for Postgres and Valkey, which are stopped last and in their own way."""


@dataclass(frozen=True, slots=True)
class Record:
    """The supervisor and what it keeps, in the order of starting."""

    supervisor: Process
    kept: tuple[Kept, ...]


def write(home: Path, supervisor: Process, kept: Sequence[Kept]) -> None:
    """Replace the home's record, whole or not at all."""
    building = home / f"{_RECORD}.new"
    content = {"supervisor": asdict(supervisor), "kept": [asdict(each) for each in kept]}
    building.write_text(json.dumps(content, indent=1))
    building.replace(home / _RECORD)


def read(home: Path) -> Record | None:
    """Return the home's record, or None where there is none that can be read."""
    try:
        content = json.loads((home / _RECORD).read_text())
        return Record(Process(**content["supervisor"]), tuple(_kept(each) for each in content["kept"]))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def remove(home: Path) -> None:
    """Forget it: nothing runs any more."""
    (home / _RECORD).unlink(missing_ok=True)


def _kept(content: dict[str, Any]) -> Kept:
    process = content.pop("process")
    return Kept(process=None if process is None else Process(**process), **content)
