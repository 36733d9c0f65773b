"""From a draft to a card: every default and rule of a provider, told by field where broken."""

from enum import StrEnum
from typing import Final, TypeVar

from config.errors import UserError
from schema.tables.providers import Authentication, LoginMode, Security, SentCopy
from tasks.access import clean_name, is_unprintable
from tasks.providers.authority import check_authority
from tasks.providers.names import normalise_host
from tasks.providers.values import (
    Fault,
    InvalidProvider,
    ProviderCard,
    ProviderDraft,
    Unset,
    imap_port_for,
    smtp_port_for,
)

_Choice = TypeVar("_Choice", bound=StrEnum)

_LONGEST_TEXT: Final = 2000
_LOCAL_HTTP: Final = tuple(
    f"http://{host}{end}" for host in ("localhost", "127.0.0.1", "[::1]") for end in ":/"
)
_STRENGTH: Final = {Security.NONE: 0, Security.STARTTLS: 1, Security.TLS: 1}
"""STARTTLS is never skipped and its certificate verified, so it protects as TLS does."""


def complete(draft: ProviderDraft, before: ProviderCard | None = None) -> ProviderCard:
    """The card that ``draft`` makes: of defaults, or of ``before`` where it is an edit.

    A host given implies its switch; a port left out follows its security, also when the security
    changes under a usual port. Raises `InvalidProvider` with every fault.
    """
    old = before or ProviderCard(name="")
    check = _Checks()
    imap_security = check.choice(
        "imap_security", "IMAP security", draft.imap_security, Security, old.imap_security
    )
    smtp_security = check.choice(
        "smtp_security", "SMTP security", draft.smtp_security, Security, old.smtp_security
    )
    imap_host = check.host("imap_host", "IMAP host", draft.imap_host, old.imap_host)
    smtp_host = check.host("smtp_host", "SMTP host", draft.smtp_host, old.smtp_host)
    card = ProviderCard(
        name=check.name(draft.name, old.name),
        receive=_switch(draft.receive, draft.imap_host, old.receive),
        imap_host=imap_host,
        imap_port=check.port(
            "imap_port",
            "IMAP port",
            draft.imap_port,
            _following(old.imap_port, imap_port_for(old.imap_security), imap_port_for(imap_security)),
            imap_host,
        ),
        imap_security=imap_security,
        imap_authentication=check.choice(
            "imap_authentication",
            "IMAP authentication",
            draft.imap_authentication,
            Authentication,
            old.imap_authentication,
        ),
        send=_switch(draft.send, draft.smtp_host, old.send),
        smtp_host=smtp_host,
        smtp_port=check.port(
            "smtp_port",
            "SMTP port",
            draft.smtp_port,
            _following(old.smtp_port, smtp_port_for(old.smtp_security), smtp_port_for(smtp_security)),
            smtp_host,
        ),
        smtp_security=smtp_security,
        smtp_authentication=check.choice(
            "smtp_authentication",
            "SMTP authentication",
            draft.smtp_authentication,
            Authentication,
            old.smtp_authentication,
        ),
        smtp_timeout=check.number(
            "smtp_timeout", "SMTP response timeout (seconds)", draft.smtp_timeout, old.smtp_timeout, 600
        ),
        login_mode=check.choice("login_mode", "login", draft.login_mode, LoginMode, old.login_mode),
        oauth_client_id=check.text(
            "oauth_client_id", "OAuth client id", draft.oauth_client_id, old.oauth_client_id
        ),
        oauth_token_url=check.url(
            "oauth_token_url", "OAuth token URL", draft.oauth_token_url, old.oauth_token_url
        ),
        oauth_scopes=check.text("oauth_scopes", "OAuth scopes", draft.oauth_scopes, old.oauth_scopes),
        oauth_authorization_url=check.url(
            "oauth_authorization_url",
            "OAuth authorization URL",
            draft.oauth_authorization_url,
            old.oauth_authorization_url,
        ),
        oauth_device_url=check.url(
            "oauth_device_url", "OAuth device URL", draft.oauth_device_url, old.oauth_device_url
        ),
        connections_per_account=check.number(
            "connections_per_account",
            "connections per account",
            draft.connections_per_account,
            old.connections_per_account,
            100,
        ),
        connections_per_host=check.number(
            "connections_per_host",
            "connections per host",
            draft.connections_per_host,
            old.connections_per_host,
            10_000,
        ),
        messages_per_minute=check.limit(
            "messages_per_minute",
            "messages a minute",
            draft.messages_per_minute,
            old.messages_per_minute,
            1_000_000,
        ),
        max_message_size=check.limit(
            "max_message_size",
            "message size (bytes)",
            draft.max_message_size,
            old.max_message_size,
            2**40,
        ),
        max_recipients=check.number(
            "max_recipients", "recipients a message", draft.max_recipients, old.max_recipients, 10_000
        ),
        sent_copy=check.choice("sent_copy", "copy in Sent", draft.sent_copy, SentCopy, old.sent_copy),
        trust_condstore=old.trust_condstore
        if isinstance(draft.trust_condstore, Unset)
        else draft.trust_condstore,
        resend_if_absent=old.resend_if_absent
        if isinstance(draft.resend_if_absent, Unset)
        else draft.resend_if_absent,
        ca=check.authority(draft.ca, old.ca),
    )
    check.switches(card)
    if check.faults:
        raise InvalidProvider(check.faults)
    return card


def needs_confirmation(before: ProviderCard, after: ProviderCard) -> bool:
    """Whether passwords given for ``before`` would now go to a new host, or less protected.

    A protocol that had no host is at a known place where the other one already was there.
    """
    old = [(before.imap_host, before.imap_security), (before.smtp_host, before.smtp_security)]
    new = [
        (after.receive, after.imap_host, after.imap_security),
        (after.send, after.smtp_host, after.smtp_security),
    ]
    for (old_host, old_security), (used, host, security) in zip(old, new, strict=True):
        known = [(old_host, old_security)] if old_host is not None else old
        if used and not any(host == h and _STRENGTH[security] >= _STRENGTH[s] for h, s in known):
            return True
    return False


class _Checks:
    """Collects faults; each method gives the value to go on with, right or not."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def fault(self, field: str, message: str) -> None:
        self.faults.append(Fault(field, message))

    def name(self, given: str | Unset, old: str) -> str:
        if isinstance(given, Unset) and old:
            return old
        try:
            return clean_name("" if isinstance(given, Unset) else given, "provider")
        except UserError as error:
            self.fault("name", str(error).removesuffix("."))
            return old

    def choice(
        self, field: str, label: str, given: str | Unset, kind: type[_Choice], old: _Choice
    ) -> _Choice:
        if isinstance(given, Unset):
            return old
        try:
            return kind(given)
        except ValueError:
            self.fault(field, f"{label} must be one of {', '.join(kind)}")
            return old

    def host(self, field: str, label: str, given: str | Unset | None, old: str | None) -> str | None:
        if isinstance(given, Unset):
            return old
        if given is None:
            return None
        try:
            return normalise_host(given)
        except UserError as error:
            self.fault(field, f"{label}: {str(error).removesuffix('.')}")
            return "invalid"

    def port(self, field: str, label: str, given: int | Unset, usual: int, host: str | None) -> int | None:
        if isinstance(given, Unset):
            return usual if host is not None else None
        self._range(field, label, given, 65535)
        return given

    def number(self, field: str, label: str, given: int | Unset, old: int, most: int) -> int:
        if isinstance(given, Unset):
            return old
        self._range(field, label, given, most)
        return given

    def limit(
        self, field: str, label: str, given: int | Unset | None, old: int | None, most: int
    ) -> int | None:
        if isinstance(given, Unset):
            return old
        if given is not None:
            self._range(field, label, given, most, ", or none")
        return given

    def text(self, field: str, label: str, given: str | Unset | None, old: str | None) -> str | None:
        if isinstance(given, Unset):
            return old
        text = (given or "").strip()
        if len(text) > _LONGEST_TEXT or any(is_unprintable(character) for character in text):
            self.fault(
                field,
                f"{label} must have at most {_LONGEST_TEXT} characters, none of them control characters",
            )
        return text or None

    def url(self, field: str, label: str, given: str | Unset | None, old: str | None) -> str | None:
        url = self.text(field, label, given, old)
        safe = url is None or url.startswith(("https://", *_LOCAL_HTTP))
        if not safe or (url is not None and (" " in url or url == "https://")):
            self.fault(field, f"{label} must be an https:// address")
        return url

    def authority(self, given: str | Unset | None, old: str | None) -> str | None:
        if isinstance(given, Unset) or given is None:
            return old if isinstance(given, Unset) else None
        try:
            return check_authority(given)
        except UserError as error:
            self.fault("ca", str(error).removesuffix("."))
            return old

    def switches(self, card: ProviderCard) -> None:
        """Rules between fields; each protocol that is on needs its host."""
        if not (card.receive or card.send):
            self.fault(
                "receive",
                "a provider must receive, send or both: give an IMAP host (--imap-host), "
                "an SMTP host (--smtp-host) or both",
            )
        if card.receive and card.imap_host is None:
            self.fault("imap_host", "IMAP host is required to receive: --imap-host")
        if card.send and card.smtp_host is None:
            self.fault("smtp_host", "SMTP host is required to send: --smtp-host")

    def _range(self, field: str, label: str, given: int, most: int, more: str = "") -> None:
        if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most:
            self.fault(field, f"{label} must be a whole number from 1 to {most}{more}")


def _switch(given: bool | Unset, host: str | Unset | None, old: bool) -> bool:
    if not isinstance(given, Unset):
        return given
    return old if isinstance(host, Unset) else host is not None


def _following(old_port: int | None, usual_before: int, usual_now: int) -> int:
    return usual_now if old_port is None or old_port == usual_before else old_port
