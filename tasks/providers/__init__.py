"""Mail services: how to talk to each, the domains each serves, and the catalogue of known ones."""

from schema.tables.providers import Provider
from tasks.providers.authority import count_certificates, read_authority
from tasks.providers.catalogue import Entry, entries, entry
from tasks.providers.changes import card_of
from tasks.providers.domains import list_domains, provider_for_address, remove_domain
from tasks.providers.engine import (
    add,
    add_domain,
    disable,
    edit,
    enable,
    get,
    list_providers,
    logo_of,
    remove,
    show,
)
from tasks.providers.installing import Installed, install
from tasks.providers.labels import DOMAINS, PROVIDERS, facts, labelled, state
from tasks.providers.logo import LOGO_BYTES, Logo, check_logo, read_logo
from tasks.providers.names import Address, normalise_domain, normalise_host, split_address
from tasks.providers.pausing import pause, resume, resume_due
from tasks.providers.sealing import open_client_secret, reseal_client_secrets
from tasks.providers.values import UNSET, Fault, InvalidProvider, ProviderCard, ProviderDraft, Unset

__all__ = [
    "DOMAINS",
    "LOGO_BYTES",
    "PROVIDERS",
    "UNSET",
    "Address",
    "Entry",
    "Fault",
    "Installed",
    "InvalidProvider",
    "Logo",
    "Provider",
    "ProviderCard",
    "ProviderDraft",
    "Unset",
    "add",
    "add_domain",
    "card_of",
    "check_logo",
    "count_certificates",
    "disable",
    "edit",
    "enable",
    "entries",
    "entry",
    "facts",
    "get",
    "install",
    "labelled",
    "list_domains",
    "list_providers",
    "logo_of",
    "normalise_domain",
    "normalise_host",
    "open_client_secret",
    "pause",
    "provider_for_address",
    "read_authority",
    "read_logo",
    "remove",
    "remove_domain",
    "reseal_client_secrets",
    "resume",
    "resume_due",
    "show",
    "split_address",
    "state",
]
