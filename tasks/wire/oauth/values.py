"""What is said to a token server, what comes of it, and what can go wrong."""

from dataclasses import dataclass, field

from config.errors import TransientError, UserError


@dataclass(frozen=True, slots=True)
class Client:
    """Who we are to a token server (RFC 6749 §2). A public client has no ``secret``.

    ``ca`` is PEM text of authorities that are trusted besides the system's. ``patience`` is how many
    seconds one request may wait in total, connecting included.
    """

    client_id: str
    token_url: str
    secret: str | None = field(default=None, repr=False)
    scopes: str | None = None
    ca: str | None = field(default=None, repr=False)
    patience: float = 20.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a token server gave (RFC 6749 §5.1). ``lifetime`` is the access token's, in seconds; ``refresh``
    None means that the one used so far goes on."""

    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    lifetime: float


class GrantRefused(UserError):
    """The grant is not valid, or not any more: revoked, expired, used up. Someone must consent again.

    ``words`` is the server's error code and description, cleaned.
    """

    code = "oauth_grant_refused"

    def __init__(self, message: str, words: str) -> None:
        super().__init__(message)
        self.words = words


class ClientRefused(UserError):
    """The token server does not accept us or our request: the provider's OAuth fields need mending."""

    code = "oauth_client_refused"


class TokenServerFailed(TransientError):
    """The token server cannot be reached, is out of order, or talks nonsense."""

    code = "oauth_server_failed"
