"""Installing packages: what is done, what is refused, in one sentence each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import apt


def test_while_installing_nothing_starts_and_then_the_policy_is_gone(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"

    with apt.nothing_starts(policy):
        assert subprocess.run([policy, "postfix", "start"], check=False).returncode == 101

    assert not policy.exists()


def test_a_policy_of_the_machine_is_left_alone(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 0\n")

    with apt.nothing_starts(policy):
        assert policy.read_text() == "#!/bin/sh\nexit 0\n"

    assert policy.exists()


def test_a_policy_of_ours_left_by_a_killed_run_is_removed(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text(apt.POLICY_TEXT)

    with apt.nothing_starts(policy):
        pass

    assert not policy.exists()


def test_what_is_installed_needs_no_apt(tmp_path: Path) -> None:
    """Every program there: with an empty PATH and no rights the answer is the same."""
    assert apt.install("sh") == ()
    assert apt.ensure("sh").name == "sh"


@pytest.mark.parametrize("as_root", [True, False], ids=["root", "nobody"])
def test_a_missing_package_is_one_sentence(as_root: bool) -> None:
    if os.geteuid() != 0 and as_root:
        pytest.skip("we are not root")
    # As root: a PATH without apt-get. As nobody: apt-get is there and must not be called.
    script = (
        "import os, sys; sys.path.insert(0, '.')\n"
        "from lab import apt\n"
        + ("apt.SEARCH = '/nonexistent'\n" if as_root else "os.geteuid = lambda: 65534\n")
        + "try: apt.install('no-such-package-here')\n"
        "except apt.CannotInstall as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(apt.__file__).parent.parent,
    )

    (sentence,) = done.stdout.splitlines()
    assert sentence.startswith("no-such-package-here: not installed")
