"""A private Postfix: own configuration, queue and data, loopback only, delivering into a private Dovecot."""

import os
import pwd
import smtplib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lab.apt import program
from lab.ports import LOOPBACK, LabError, free_ports, kill_session, port_open, session_members, wait_until
from lab.servers.dovecot import Dovecot
from lab.servers.tree import Tree, open_tree

STARTING: Final = 20.0
"""Seconds to start, and to end."""
OLDEST: Final = (3, 7)


@dataclass(frozen=True, slots=True)
class PostfixOptions:
    """What a test may want otherwise; sizes in bytes, ``extra`` is appended to main.cf."""

    message_size_limit: int = 50_000_000
    extra: str = ""


class Postfix:
    """Postfix 3.7 or newer as root: STARTTLS on ``smtp_port``, TLS on ``smtps_port``, AUTH asked of Dovecot.

    Mail for ``domains`` goes to Dovecot by LMTP, for known users only (550 5.1.1 for others), without or
    with AUTH; mail for anywhere else is refused, so nothing leaves the machine. The Dovecot outlives it.
    """

    def __init__(
        self,
        dovecot: Dovecot,
        domains: tuple[str, ...],
        directory: Path | None = None,
        *,
        options: PostfixOptions | None = None,
    ) -> None:
        binary = program("postfix")
        if binary is None:
            raise LabError("Postfix is not installed; run lab/apt.py as root.")
        if os.geteuid() != 0:
            raise LabError("Postfix starts only as root; use the servers from wheels.")
        self.version = _version(binary)
        self.host = LOOPBACK
        self._binary = binary
        self._dovecot = dovecot
        self._domains = domains
        self._options = options or PostfixOptions()
        self._users: list[str] = []
        self._session: int | None = None
        self._tree: Tree = open_tree("postfix", directory)
        self.tree = self._tree.path
        self.smtp_port, self.smtps_port = free_ports(2, self.host)
        self._write()

    @property
    def log_file(self) -> Path:
        """What Postfix would tell syslog."""
        return self.tree / "postfix.log"

    def start(self) -> Self:
        """Start, and return when both ports greet; may be called again after ``stop``."""
        if self._session is not None:
            raise LabError("this Postfix runs already")
        self._command("start")
        self._session = self._master()
        try:
            wait_until(self._greets, STARTING, "Postfix ready")
        except LabError as error:
            self.stop()
            raise LabError(f"{error}\n{self.log_tail()}") from error
        return self

    def stop(self) -> None:
        """End every process; queue and ports stay for another ``start``."""
        if self._session is not None:
            session, self._session = self._session, None
            try:
                if session in session_members(session):
                    self._command("abort")
            finally:
                kill_session(session, STARTING)

    def close(self) -> None:
        """Stop and delete the tree with all that is queued."""
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

    def add_user(self, address: str) -> None:
        """Take mail for ``address`` from now on; its password is Dovecot's to know."""
        self._users.append(address.lower())
        self._write_users()
        if self._session is not None:
            self._command("reload")

    def processes(self) -> list[int]:
        """Ids of the master and its children, none when stopped."""
        return session_members(self._session) if self._session is not None else []

    def queue(self) -> list[str]:
        """Ids of the messages Postfix still holds."""
        folders = ("incoming", "active", "deferred", "hold", "maildrop")
        return sorted(
            path.name
            for name in folders
            for path in (self.tree / "queue" / name).rglob("*")
            if path.is_file()
        )

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the log."""
        text = self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _write(self) -> None:
        owner = pwd.getpwnam("postfix")
        for name in ("etc", "queue"):
            (self.tree / name).mkdir(mode=0o755)
        (self.tree / "data").mkdir(mode=0o700)
        os.chown(self.tree / "data", owner.pw_uid, owner.pw_gid)
        (self.tree / "etc" / "main.cf").write_text(self._main())
        (self.tree / "etc" / "master.cf").write_text(
            MASTER.format(host=self.host, smtp=self.smtp_port, smtps=self.smtps_port)
        )
        self._write_users()

    def _write_users(self) -> None:
        (self.tree / "etc" / "users").write_text("".join(f"{user} here\n" for user in self._users))

    def _main(self) -> str:
        certificate = self._dovecot.certificate
        return MAIN.format(
            tree=self.tree,
            domains=", ".join(self._domains),
            lmtp=self._dovecot.lmtp_socket,
            auth=self._dovecot.auth_socket,
            chain=certificate.chain_file,
            key=certificate.key_file,
            limit=self._options.message_size_limit,
            extra=self._options.extra,
        )

    def _command(self, verb: str) -> None:
        done = subprocess.run(
            [str(self._binary), "-c", str(self.tree / "etc"), verb],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"postfix {verb}: {(done.stderr + done.stdout).strip()}\n{self.log_tail()}")

    def _master(self) -> int:
        """The master's process id; it leads a session of its own."""
        return int((self.tree / "queue" / "pid" / "master.pid").read_text())

    def _greets(self) -> bool:
        if not port_open(self.host, self.smtps_port):
            return False
        try:
            with smtplib.SMTP(self.host, self.smtp_port, timeout=5) as client:
                return client.noop()[0] == 250
        except (OSError, smtplib.SMTPException):
            return False


def _version(binary: Path) -> str:
    postconf = program("postconf") or binary.with_name("postconf")
    done = subprocess.run([str(postconf), "-dh", "mail_version"], capture_output=True, text=True, check=True)
    version = done.stdout.strip()
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise LabError(f"Postfix {version} is too old: 3.7 is the oldest known here.")
    return version


MAIN: Final = """\
compatibility_level = 3.6
queue_directory = {tree}/queue
data_directory = {tree}/data
maillog_file = {tree}/postfix.log
maillog_file_prefixes = {tree}
mail_owner = postfix
setgid_group = postdrop
myhostname = lab.example.net
mydestination =
mynetworks =
inet_interfaces = loopback-only
inet_protocols = ipv4
alias_maps =
alias_database =
local_transport = error:no local mail here
default_transport = error:5.1.2 mail does not leave the lab
relayhost =
smtp_dns_support_level = disabled
biff = no

virtual_mailbox_domains = {domains}
virtual_mailbox_maps = texthash:{tree}/etc/users
virtual_transport = lmtp:unix:{lmtp}
lmtp_destination_recipient_limit = 50

smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = reject_unlisted_recipient
smtpd_delay_reject = yes
smtpd_banner = $myhostname ESMTP lab
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtpd_client_recipient_rate_limit = 0
smtpd_recipient_limit = 1000
smtpd_error_sleep_time = 0
smtpd_hard_error_limit = 1000
smtpd_soft_error_limit = 1000
smtpd_peername_lookup = no
smtputf8_enable = yes
message_size_limit = {limit}
mailbox_size_limit = 0
virtual_mailbox_limit = 0
default_process_limit = 100

smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {auth}
smtpd_sasl_security_options = noanonymous
smtpd_sasl_tls_security_options = noanonymous
smtpd_tls_auth_only = no
smtpd_tls_security_level = may
smtpd_tls_chain_files = {key}, {chain}
smtpd_tls_session_cache_database =
smtpd_tls_loglevel = 0
{extra}
"""

MASTER: Final = """\
{host}:{smtp} inet n - n - - smtpd
{host}:{smtps} inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
