"""The refusals of an outgoing message. Every door tells the same ``code`` for the same fault."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from config.errors import Conflict, NotFound, PermissionDenied, UserError


class MessageRefused(UserError):
    """The message itself cannot be accepted."""

    code = "message_invalid"


class AddressInvalid(MessageRefused):
    """What should be an address is none (RFC 5321 §4.1.2, RFC 6531)."""

    code = "address_invalid"


class HeaderInjection(MessageRefused):
    """A value that goes into a header holds a line end or another control character."""

    code = "header_injection"


class HeaderForbidden(MessageRefused):
    """A header that we write ourselves, or that must not leave the house."""

    code = "header_forbidden"


class NoRecipients(MessageRefused):
    """Nobody in to, cc or bcc."""

    code = "no_recipients"


class TooManyRecipients(MessageRefused):
    """More recipients than the provider takes."""

    code = "too_many_recipients"


class MessageTooBig(MessageRefused):
    """More bytes than we, the provider or its server take."""

    code = "message_too_big"


class SenderNotAllowed(MessageRefused):
    """From is neither the mailbox's address nor one it may send as."""

    code = "sender_not_allowed"


class SendingOff(MessageRefused):
    """The mailbox or its provider does not send."""

    code = "sending_off"


class KeyInvalid(MessageRefused):
    """No idempotency key."""

    code = "idempotency_key_invalid"


class KeyReused(Conflict):
    """The idempotency key came with another message before."""

    code = "idempotency_key_reused"


class MailboxUnknown(NotFound):
    """There is no such mailbox."""

    code = "mailbox_unknown"


class NotSupported(MessageRefused):
    """The provider's server lacks an extension without which the message cannot go."""

    code = "not_supported"


class TemplateInvalid(MessageRefused):
    """What should be a template is none, does what none may, or costs too much to render."""

    code = "template_invalid"


class VariableMissing(MessageRefused):
    """A template needs a variable that was not given."""

    code = "template_variable_missing"


class TemplateUnknown(NotFound):
    """There is no such template."""

    code = "template_unknown"


class OriginalUnknown(NotFound):
    """The mailbox has no such message that could be answered."""

    code = "original_unknown"


REFUSALS: Final[Mapping[str, type[UserError]]] = MappingProxyType(
    {
        kind.code: kind
        for kind in (
            MessageRefused,
            AddressInvalid,
            HeaderInjection,
            HeaderForbidden,
            NoRecipients,
            TooManyRecipients,
            MessageTooBig,
            SenderNotAllowed,
            SendingOff,
            KeyInvalid,
            KeyReused,
            MailboxUnknown,
            NotSupported,
            TemplateInvalid,
            VariableMissing,
            TemplateUnknown,
            OriginalUnknown,
            PermissionDenied,
        )
    }
)
"""Every refusal of a message by its code: the one list for all doors, told as a table in docs/sending.md."""


def from_sql(text: str) -> UserError:
    """The error that the SQL functions tell as ``code: sentence``."""
    code, _, sentence = text.partition(": ")
    return REFUSALS.get(code, MessageRefused)(sentence or text)
