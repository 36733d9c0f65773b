"""Dovecot's configuration, for 2.3 and for 2.4, whose languages differ."""

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Final

from lab.ports import LabError
from lab.servers.certificates import Certificate
from lab.servers.tree import Account

SPECIAL: Final = ("Sent", "Drafts", "Trash", "Junk", "Archive")
"""Folders made for every user, each with the SPECIAL-USE attribute of its name (RFC 6154)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a configuration is made of; ports are TCP ports on ``host``."""

    tree: Path
    host: str
    imap_port: int
    imaps_port: int
    lmtp: bool
    certificate: Certificate
    account: Account
    """Who reads the mail."""
    root: bool
    """Whether Dovecot is started by root and has its own users for its inner processes."""
    imap_client_limit: int
    connections_per_user: int
    extra: str
    introspection_url: str | None = None
    """Whom to ask about OAuth 2.0 access tokens (RFC 7662); None offers no such login."""

    @property
    def lmtp_socket(self) -> Path:
        """Where LMTP (RFC 2033) listens."""
        return self.tree / "lmtp"

    @property
    def oauth2_file(self) -> Path:
        """Where 2.3 wants its OAuth 2.0 settings: a file of their own."""
        return self.tree / "oauth2.conf.ext"

    @property
    def auth_socket(self) -> Path:
        """Where Dovecot answers Postfix's questions about passwords."""
        return self.tree / "auth"


def render(version: str, plan: Plan) -> str:
    """The configuration file for a Dovecot of ``version``, such as ``2.3.19``.

    Raises `LabError` for a version whose language is not known here.
    """
    match = re.match(r"(\d+)\.(\d+)", version)
    known = match.groups() if match else None
    if known == ("2", "3"):
        head, once, ever = _head_23(plan), "service_count = 1", "service_count = 0"
    elif known == ("2", "4"):
        head = _head_24(version, plan)
        once, ever = "restart_request_count = 1", "restart_request_count = unlimited"
    else:
        raise LabError(f"Dovecot {version} is not known here: 2.3 and 2.4 are.")
    shared = ever if plan.imap_client_limit > 1 else once
    return "\n".join([head, _common(plan, ever, shared), plan.extra, ""])


def oauth2_settings(plan: Plan) -> str:
    """How to ask about access tokens; the words are the same in both languages."""
    return f"""\
introspection_url = {plan.introspection_url}
introspection_mode = post
force_introspection = yes
username_attribute = username
active_attribute = active
active_value = true
"""


def _head_23(plan: Plan) -> str:
    account = plan.account
    oauth2 = f"""
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {plan.oauth2_file}
}}"""
    return f"""\
disable_plaintext_auth = no
protocols = imap{" lmtp" if plan.lmtp else ""}
ssl = yes
ssl_cert = <{plan.certificate.chain_file}
ssl_key = <{plan.certificate.key_file}
mail_location = maildir:{plan.tree}/mail/%u
passdb {{
  driver = passwd-file
  args = username_format=%u {plan.tree}/users
  mechanisms = plain login
}}{oauth2 if plan.introspection_url else ""}
userdb {{
  driver = passwd-file
  args = username_format=%u {plan.tree}/users
  override_fields = uid={account.uid} gid={account.gid} home={plan.tree}/home/%u
}}
lda_mailbox_autocreate = yes
"""


def _head_24(version: str, plan: Plan) -> str:
    numbers = re.match(r"\d+\.\d+(\.\d+)?", version)
    exact = numbers.group() if numbers else version
    account = plan.account
    oauth2 = f"oauth2 {{\n{indent(oauth2_settings(plan), '  ')}}}\n" if plan.introspection_url else ""
    return f"""\
dovecot_config_version = {exact}
dovecot_storage_version = {exact}
auth_allow_cleartext = yes
protocols {{
  imap = yes
  lmtp = {"yes" if plan.lmtp else "no"}
}}
ssl = yes
ssl_server_cert_file = {plan.certificate.chain_file}
ssl_server_key_file = {plan.certificate.key_file}
mail_driver = maildir
mail_path = {plan.tree}/mail/%{{user}}
passdb passwd-file {{
  passwd_file_path = {plan.tree}/users
}}
userdb passwd-file {{
  passwd_file_path = {plan.tree}/users
  fields {{
    uid:default = {account.uid}
    gid:default = {account.gid}
    home:default = {plan.tree}/home/%{{user}}
  }}
}}
lda_mailbox_autocreate = yes
{oauth2}"""


def _common(plan: Plan, login_lives: str, imap_lives: str) -> str:
    """What both languages share; ``…_lives`` say for how many clients a process lasts."""
    account = plan.account
    inner = jail = lmtp = ""
    if not plan.root:  # then nothing can change its user or its root directory
        inner = (
            f"default_internal_user = {account.name}\n"
            f"default_internal_group = {account.group}\n"
            f"default_login_user = {account.name}\n"
        )
        jail = "  chroot =\n"
    if plan.lmtp:
        lmtp = f"service lmtp {{\n  unix_listener {plan.lmtp_socket} {{\n    mode = 0666\n  }}\n}}\n"
    folders = "\n".join(
        f"mailbox {name} {{\n  auto = subscribe\n  special_use = \\{name}\n}}" for name in SPECIAL
    )
    return f"""\
{inner}base_dir = {plan.tree}/run
state_dir = {plan.tree}/state
log_path = {plan.tree}/dovecot.log
listen = {plan.host}
first_valid_uid = 1
first_valid_gid = 1
auth_mechanisms = plain login{" xoauth2 oauthbearer" if plan.introspection_url else ""}
auth_failure_delay = 0
namespace inbox {{
  inbox = yes
  separator = /
{indent(folders, "  ")}
}}
protocol imap {{
  mail_max_userip_connections = {plan.connections_per_user}
}}
service imap-login {{
{jail}  {login_lives}
  client_limit = 4000
  process_limit = 4
  inet_listener imap {{
    port = {plan.imap_port}
  }}
  inet_listener imaps {{
    port = {plan.imaps_port}
    ssl = yes
  }}
}}
service imap {{
  client_limit = {plan.imap_client_limit}
  {imap_lives}
  process_limit = 4000
}}
service anvil {{
{jail}  client_limit = 20000
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  client_limit = 20000
  unix_listener {plan.auth_socket} {{
    mode = 0666
  }}
}}
{lmtp}"""
