"""The doors of the project as a newcomer meets them: Makefile, environment, locks, image."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOORS = {"help", "demo", "up", "down", "test", "lint", "bench", "docs", "clean", "lock"}
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A copy of what setting up needs, without the environment."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def make(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *words], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )


def interpreter(path: Path, body: str) -> Path:
    """Make a program that stands for a Python interpreter."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_make_alone_lists_every_door() -> None:
    told = make(ROOT)

    assert told.returncode == 0
    assert set(re.findall(r"^  make (\w+)", told.stdout, re.M)) >= DOORS


@pytest.mark.parametrize("door", sorted(DOORS))
def test_a_door_exists(door: str) -> None:
    assert make(ROOT, "--dry-run", door).returncode == 0


def test_a_python_too_old_is_refused_in_a_sentence(checkout: Path) -> None:
    old = interpreter(checkout / "python", "echo 3.10")

    told = make(checkout, "setup", f"PYTHON={old}")

    first = told.stderr.splitlines()[0]
    assert told.returncode != 0
    assert first == (
        f'make: mailwright needs Python 3.11 or newer and "{old}" is 3.10. '
        "Name another: make PYTHON=/path/to/python3.11"
    )
    assert not (checkout / ".venv").exists()


def test_a_missing_python_is_told_in_a_sentence(checkout: Path) -> None:
    told = make(checkout, "setup", "PYTHON=no-such-python")

    assert told.returncode != 0
    assert told.stderr.startswith('make: there is no "no-such-python" here. Install Python 3.11 or newer')


def test_an_environment_that_agrees_with_the_locks_is_left_alone(checkout: Path) -> None:
    """Neither pip nor uv is there to be called, so it works without network."""
    asked = checkout / "asked"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = interpreter(checkout / "python", f'echo "$*" >> {asked}; exec {sys.executable} "$@"')
    environment = checkout / ".venv"
    (environment / "bin").mkdir(parents=True)
    interpreter(environment / "bin/python", "exit 1")
    stamp = (
        "cd {0}; {{ pwd; echo {1}; cat {2}; }} | {3} -c "
        "'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())' > .venv/stamp-{4}"
    )
    for name, files in (
        ("dev", "requirements/dev.txt"),
        ("project", "pyproject.toml"),
    ):
        subprocess.run(["sh", "-c", stamp.format(checkout, version, files, sys.executable, name)], check=True)

    told = make(checkout, "setup", f"PYTHON={python}")

    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    assert "pip" not in asked.read_text()
    assert "venv" not in asked.read_text()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_names_hashes_and_no_address(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    pinned = [line for line in lines if re.match(r"[a-z0-9]", line)]

    assert pinned
    assert all("==" in line and line.endswith("\\") for line in pinned)
    assert "://" not in lock.read_text()
    assert not any(line.startswith("--") for line in lines)


def test_the_locks_are_nested() -> None:
    """The benchmark's environment serves the tests too, and the tests run what ships."""

    def pins(name: str) -> set[str]:
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        return {line.split(" ")[0] for line in text.splitlines() if re.match(r"[a-z0-9]", line)}

    assert pins("bootstrap") <= pins("dev") <= pins("bench")


def test_the_image_is_built_from_what_is_there() -> None:
    recipe = (ROOT / "Dockerfile").read_text()
    sources = [
        word for line in re.findall(r"^COPY (?!--from)(.+)$", recipe, re.M) for word in line.split()[:-1]
    ]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    assert sources
    assert all((ROOT / source).exists() for source in sources)
    assert set(sources) <= allowed
    assert "\nUSER mailwright\n" in recipe


def test_ci_runs_the_three_doors() -> None:
    steps = re.findall(r"^time make (\w+)$", (ROOT / ".ci/run").read_text(), re.M)

    assert steps == ["lint", "test", "demo"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
