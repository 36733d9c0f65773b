"""A private Dovecot: own tree, own ports on loopback, own users, gone without a trace."""

import os
import re
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lab.apt import program
from lab.ports import LOOPBACK, LabError, Supervised, free_ports, port_open
from lab.servers.certificates import Certificate, issue
from lab.servers.dovecot_conf import Plan, oauth2_settings, render
from lab.servers.maildir import Maildir
from lab.servers.tree import Tree, open_tree, unprivileged
from lab.servers.uidlist import forget_uids

NAME: Final = re.compile(r"[^\s:/\x00-\x1f]+")


@dataclass(frozen=True, slots=True)
class DovecotOptions:
    """What a test may want otherwise.

    ``imap_client_limit`` is how many connections share one imap process: more than one spares
    memory and inotify instances (128 a user) where hundreds idle. With an ``introspection_url`` (of
    `lab.servers.token_server`) it takes OAuth 2.0 access tokens too. ``extra`` is appended to the
    configuration.
    """

    lmtp: bool = True
    imap_client_limit: int = 1
    connections_per_user: int = 1000
    extra: str = ""
    introspection_url: str | None = None


class Dovecot:
    """Dovecot 2.3 or 2.4 on free ports: plain with STARTTLS on ``imap_port``, TLS on ``imaps_port``.

    Works as root (the mail is then nobody's) and as an ordinary user. Needs `lab.apt`'s packages.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        options: DovecotOptions | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        binary, doveadm = program("dovecot"), program("doveadm")
        if binary is None or doveadm is None:
            raise LabError("Dovecot is not installed; run lab/apt.py as root.")
        self.version = _version(binary)
        self.host = LOOPBACK
        self.doveadm = doveadm
        self._binary = binary
        self._tree: Tree = open_tree("dovecot", directory)
        self.tree = self._tree.path
        self._account = unprivileged()
        self._options = options or DovecotOptions()
        self._boxes: dict[str, Maildir] = {}
        self._process: Supervised | None = None
        self.certificate = certificate or issue(self.tree / "tls")
        self.imap_port, self.imaps_port = free_ports(2, self.host)
        self._plan = self._new_plan()
        self._write()

    @property
    def ca_file(self) -> Path:
        """PEM file of the authority to trust."""
        return self.certificate.ca_file

    @property
    def config_file(self) -> Path:
        """For ``doveadm -c`` and the like."""
        return self.tree / "dovecot.conf"

    @property
    def lmtp_socket(self) -> Path:
        """Path of the LMTP socket."""
        return self._plan.lmtp_socket

    @property
    def auth_socket(self) -> Path:
        """Path of the SASL socket for Postfix."""
        return self._plan.auth_socket

    @property
    def pid(self) -> int | None:
        """Process and session id of the master while it runs."""
        return self._process.pid if self._process else None

    def processes(self) -> list[int]:
        """Ids of the master and its children, none when stopped."""
        return self._process.members() if self._process else []

    def start(self) -> Self:
        """Start, and return when both ports answer; may be called again after ``stop``."""
        if self._process is not None:
            raise LabError("this Dovecot runs already")
        process = Supervised(
            [str(self._binary), "-F", "-c", str(self.config_file)],
            log=self.tree / "master.log",
            cwd=self.tree,
        )
        try:
            process.wait_ready(self._answers)
        except LabError as error:
            raise LabError(f"{error}\n{self.log_tail()}") from error
        self._process = process
        return self

    def stop(self) -> None:
        """End every process; mail and ports stay for another ``start``."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def close(self) -> None:
        """Stop and delete the tree."""
        self.stop()
        self._tree.remove()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add_user(self, address: str, password: str) -> None:
        """Let ``address`` (or any login name) in from now on; a known one gets the new password."""
        if not NAME.fullmatch(address):
            raise ValueError(f"not a login name Dovecot's passwd-file can hold: {address!r}")
        address = address.lower()
        users = self.tree / "users"
        others = [line for line in users.read_text().splitlines() if not line.startswith(f"{address}:")]
        line = f"{address}:{{PLAIN.HEX}}{password.encode().hex()}::::::"
        draft = self.tree / "users.new"
        draft.write_text("\n".join([*others, line]) + "\n")
        draft.chmod(0o644)
        draft.replace(users)
        self.maildir(address)

    def maildir(self, user: str) -> Maildir:
        """The files of one user's mail."""
        user = user.lower()
        if user not in self._boxes:
            owner = (self._account.uid, self._account.gid) if os.geteuid() == 0 else None
            self._boxes[user] = Maildir(self.tree / "mail" / user, owner)
        return self._boxes[user]

    def deliver(self, user: str, data: bytes, folder: str = "INBOX", received: float | None = None) -> Path:
        """Put a message into a folder by writing its file (fast); see `Maildir.deliver`."""
        return self.maildir(user).deliver(data, folder, received)

    def files(self, user: str, folder: str = "INBOX") -> list[Path]:
        """The files of a folder's messages, in order of delivery."""
        return self.maildir(user).files(folder)

    def set_uidvalidity(self, user: str, folder: str, value: int) -> None:
        """Give a folder the UIDVALIDITY ``value``; its UIDs stay."""
        self.admin("mailbox", "update", "-u", user.lower(), "--uid-validity", str(value), folder)

    def reset_uidvalidity(self, user: str, folder: str = "INBOX") -> None:
        """Make the server forget a folder's UIDs: the next look gives new ones under the next UIDVALIDITY.
        Sessions of the user are ended, which would go on with what they have in memory."""
        forget_uids(self.maildir(user).folder(folder))
        with suppress(LabError):  # nobody there to be ended
            self.admin("kick", user.lower())

    def admin(self, *arguments: str) -> str:
        """Run doveadm against this server and return what it printed; raises `LabError` if it fails."""
        done = subprocess.run(
            [str(self.doveadm), "-c", str(self.config_file), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"doveadm {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of Dovecot's log."""
        log = self.tree / "dovecot.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    def _new_plan(self) -> Plan:
        return Plan(
            tree=self.tree,
            host=self.host,
            imap_port=self.imap_port,
            imaps_port=self.imaps_port,
            lmtp=self._options.lmtp,
            certificate=self.certificate,
            account=self._account,
            root=os.geteuid() == 0,
            imap_client_limit=self._options.imap_client_limit,
            connections_per_user=self._options.connections_per_user,
            extra=self._options.extra,
            introspection_url=self._options.introspection_url,
        )

    def _write(self) -> None:
        self.config_file.write_text(render(self.version, self._plan))
        if self._plan.introspection_url is not None:
            self._plan.oauth2_file.write_text(oauth2_settings(self._plan))
        for name in ("mail", "home"):
            (self.tree / name).mkdir(mode=0o755)
            if os.geteuid() == 0:
                os.chown(self.tree / name, self._account.uid, self._account.gid)
        (self.tree / "state").mkdir(mode=0o755)
        (self.tree / "users").touch(mode=0o644)

    def _answers(self) -> bool:
        return _greets(self.host, self.imap_port) and port_open(self.host, self.imaps_port)


def _version(binary: Path) -> str:
    done = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[0]


def _greets(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=5) as connection:
            return connection.recv(4) == b"* OK"
    except OSError:
        return False
