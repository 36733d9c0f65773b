"""A private certificate authority for the lab's servers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

NAMES: Final = ("localhost", "127.0.0.1", "::1")
"""The names and addresses that the lab's servers are reached by."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files: the authority to trust, a server's chain, its key (mode 0600)."""

    ca_file: Path
    chain_file: Path
    key_file: Path


def issue(directory: Path, names: tuple[str, ...] = NAMES) -> Certificate:
    """Make an authority and a certificate for ``names`` (DNS names or IP addresses) in ``directory``.

    Other names than the default make a certificate that must be refused.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    authority = trustme.CA(organization_name="mailwright lab")
    issued = authority.issue_cert(*names)
    made = Certificate(directory / "ca.pem", directory / "chain.pem", directory / "key.pem")
    authority.cert_pem.write_to_path(str(made.ca_file))
    made.chain_file.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    made.key_file.touch(mode=0o600)
    made.key_file.write_bytes(issued.private_key_pem.bytes())
    return made
