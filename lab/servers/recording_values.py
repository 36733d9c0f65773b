"""How the recording server shall behave, and what it notes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Span = tuple[float, float]
"""Seconds, at least and at most; the server draws one in between each time."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the server treats its clients; may be replaced while it runs.

    ``recipients`` maps patterns (``*@full.example``) to whole replies to RCPT (``452 4.2.2 full``);
    the first that fits counts. ``final_reply``, unless it begins with 2, refuses every message after
    its dot. ``hang_up_after_dot`` is the probability that a recorded message gets no reply;
    ``lose_after_dot`` that a message is neither recorded nor answered.
    """

    pause_before_data: Span = (0.0, 0.0)
    pause_after_dot: Span = (0.0, 0.0)
    hang_up_after_dot: float = 0.0
    lose_after_dot: float = 0.0
    recipients: Mapping[str, str] = field(default_factory=dict)
    final_reply: str = "250 2.0.0 accepted"
    passwords: Mapping[str, str] | None = None
    """Who may log in, by login; None lets everyone in."""
    size_limit: int = 50_000_000
    """Bytes."""
    mechanisms: tuple[str, ...] = ("PLAIN",)
    """What AUTH offers: PLAIN, OAUTHBEARER, XOAUTH2."""
    whose: Callable[[str], str | None] = lambda _token: None
    """The login that an access token belongs to (`lab.servers.token_server`)."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One message that the server took responsibility for.

    ``time`` is in seconds since the epoch; ``sha256`` that of the message without dot-stuffing,
    with CRLF; header values are unfolded, "" where the header is missing.
    """

    time: float
    session: int
    mail_from: str
    recipients: tuple[str, ...]
    sha256: str
    size: int
    message_id: str
    attempt: str
