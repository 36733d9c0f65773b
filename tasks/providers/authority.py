"""A private certificate authority, given as PEM and checked to be certificates and nothing else."""

from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from config.errors import UserError
from tasks.access import quoted

AUTHORITY_BYTES: Final = 2**20


def read_authority(path: Path) -> str:
    """The certificates in a PEM file. Raises `UserError` naming the file and what is wrong."""
    try:
        with path.open("rb") as file:
            content = file.read(AUTHORITY_BYTES + 1)
        return check_authority(content.decode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"the CA file {quoted(str(path))} cannot be read: {error.strerror}.") from None
    except UserError as error:
        raise UserError(f"{quoted(str(path))}: {error}") from None


def check_authority(pem: str) -> str:
    """Only the certificates of ``pem``, as PEM. Raises `UserError` where there are none, or where a
    private key is among them, which must not be stored in the open."""
    if len(pem) > AUTHORITY_BYTES:
        raise UserError("the CA must have at most 1 MiB.")
    if "PRIVATE KEY" in pem:
        raise UserError("the CA holds a private key. Give the certificates alone.")
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode("utf-8", "replace"))
    except ValueError:
        certificates = []
    if not certificates:
        raise UserError("the CA must be one or more certificates in PEM (-----BEGIN CERTIFICATE-----).")
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def count_certificates(pem: str) -> int:
    """How many certificates a stored CA has."""
    return pem.count("-----BEGIN CERTIFICATE-----")
