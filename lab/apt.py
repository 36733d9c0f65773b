"""Debian packages that the lab wants: found, or installed without starting anything.

Run as a script (``python lab/apt.py``) it makes sure of Dovecot and Postfix and says in one
sentence what it did. It needs nothing but the standard library.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

POLICY: Final = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT: Final = "#!/bin/sh\n# mailwright: nothing starts while its packages are installed.\nexit 101\n"
LOCK: Final = Path("/run/lock/mailwright-apt.lock")
SEARCH: Final = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/dovecot"]
)
WAIT: Final = 300
"""Seconds to wait for somebody else's package lock."""

PROGRAMS: Final[Mapping[str, str]] = {
    "dovecot-imapd": "/usr/lib/dovecot/imap",
    "dovecot-lmtpd": "/usr/lib/dovecot/lmtp",
    "postfix": "postfix",
    "isync": "mbsync",
}
"""What proves that a package is there; for the rest a program named like the package does."""
MAIL_PACKAGES: Final = ("dovecot-imapd", "dovecot-lmtpd", "postfix")
ANSWERS: Final[Mapping[str, str]] = {
    "postfix": "postfix postfix/main_mailer_type select No configuration\n",
}
"""What debconf would ask, answered beforehand."""
UNITS: Final[Mapping[str, str]] = {"dovecot": "dovecot.service", "postfix": "postfix.service"}
"""Services that would start at the next boot, by the program whose absence makes them ours."""


class CannotInstall(Exception):
    """A package is missing and cannot be installed here; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class MailServers:
    """Where the real mail servers are, and which packages had to be installed just now."""

    dovecot: Path
    doveadm: Path
    postfix: Path
    installed: tuple[str, ...] = ()


def find_mail_servers() -> MailServers | None:
    """Return the installed mail servers, or None if one of them is missing."""
    if any(program(package) is None for package in MAIL_PACKAGES):
        return None
    dovecot, doveadm, postfix = program("dovecot"), program("doveadm"), program("postfix")
    if dovecot is None or doveadm is None or postfix is None:
        return None
    return MailServers(dovecot, doveadm, postfix)


def ensure_mail_servers() -> MailServers:
    """Return Dovecot and Postfix, after installing what is missing.

    Calls apt only when something is missing. Raises `CannotInstall` when it cannot.
    """
    installed = install(*MAIL_PACKAGES)
    servers = find_mail_servers()
    if servers is None:
        raise CannotInstall(
            "apt installed Dovecot and Postfix, yet dovecot, doveadm or postfix is not there."
        )
    return MailServers(servers.dovecot, servers.doveadm, servers.postfix, installed)


def ensure(package: str) -> Path:
    """Return the program of ``package`` (such as ``isync``), after installing it if missing."""
    install(package)
    path = program(package)
    if path is None:
        raise CannotInstall(f"apt installed {package}, yet its program is not there.")
    return path


def program(package: str) -> Path | None:
    """The program that proves ``package`` to be installed, or None."""
    found = shutil.which(PROGRAMS.get(package, package), path=SEARCH)
    return Path(found) if found else None


def install(*packages: str) -> tuple[str, ...]:
    """Install those of ``packages`` that are missing and return their names; nothing is started."""
    if not _missing(packages):
        return ()
    apt, wanted = shutil.which("apt-get", path=SEARCH), " ".join(_missing(packages))
    if apt is None:
        raise CannotInstall(f"{wanted}: not installed, and there is no apt-get here; install them yourself.")
    if os.geteuid() != 0:
        raise CannotInstall(
            f"{wanted}: not installed; as root run: apt-get install --no-install-recommends {wanted}"
        )
    with _alone(), nothing_starts():
        missing = _missing(packages)  # another process may have installed them while we waited
        if missing:
            _answer(missing)
            newcomers = [unit for name, unit in UNITS.items() if shutil.which(name, path=SEARCH) is None]
            _apt_install(apt, missing)
            _not_at_boot(newcomers)
    return missing


def _missing(packages: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(package for package in packages if program(package) is None)


def _apt_install(apt: str, packages: tuple[str, ...]) -> None:
    command = [apt, "-q", "-y", "-o", f"DPkg::Lock::Timeout={WAIT}", "install", "--no-install-recommends"]
    done = _run([*command, *packages])
    if done.returncode != 0:  # the package lists are old or absent: fetch them, then once more
        updated = _run([apt, "-q", "update"])
        done = _run([*command, *packages]) if updated.returncode == 0 else updated
    if done.returncode != 0:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("E:")]
        why = lines[0].removeprefix("E: ") if lines else f"apt-get ended with {done.returncode}"
        raise CannotInstall(f"{' '.join(packages)}: could not be installed ({why}).")


def _run(command: list[str], given: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        command,
        input=given or "",
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _answer(packages: tuple[str, ...]) -> None:
    answers = "".join(ANSWERS[package] for package in packages if package in ANSWERS)
    if answers and (tool := shutil.which("debconf-set-selections", path=SEARCH)):
        _run([tool], answers).check_returncode()


def _not_at_boot(units: list[str]) -> None:
    """Where systemd rules, what we installed shall not start at the next boot either."""
    if units and Path("/run/systemd/system").is_dir():
        _run(["systemctl", "disable", *units])


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the lab's own lock, so that two runs never share one policy-rc.d."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def nothing_starts(policy: Path = POLICY) -> Iterator[None]:
    """Forbid service starts through policy-rc.d, unless the machine has a policy already."""
    left_over = policy.exists() and policy.read_text(errors="replace") == POLICY_TEXT
    if policy.exists() and not left_over:
        yield
        return
    policy.write_text(POLICY_TEXT)
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def main() -> int:
    """Make sure of the mail servers and say so in one sentence."""
    try:
        servers = ensure_mail_servers()
    except CannotInstall as error:
        print(f"mail servers: {error}", file=sys.stderr)
        return 1
    what = f"installed {' '.join(servers.installed)}" if servers.installed else "already installed"
    print(f"mail servers: {what}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
