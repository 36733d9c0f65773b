"""The four top-level packages are ours alone: other distributions of these names would install into them."""

import importlib.metadata
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("config", "schema", "tasks", "worker")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_claims_a_package(package: str) -> None:
    """An editable installation lists no packages, so ours may be absent; anybody else's may not be there."""
    assert set(importlib.metadata.packages_distributions().get(package, [])) <= {"mailwright"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_this_checkouts(package: str) -> None:
    spec = importlib.util.find_spec(package)

    assert spec is not None
    assert spec.origin == str(ROOT / package / "__init__.py")


def test_the_wheel_holds_the_four_packages_with_their_data_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = [Path(name) for name in zipfile.ZipFile(wheel).namelist()]

    assert {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")} == set(PACKAGES)
    assert {Path("worker/cli/__init__.py"), Path("config/settings.py")} <= set(names)
    data = {path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.sql")}
    assert data
    assert data <= set(names)
