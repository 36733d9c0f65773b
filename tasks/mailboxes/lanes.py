"""The rows by which the schedule and the outbox know a mailbox, kept true to what is set.

A mailbox is looked at where it and its provider receive, the provider is not disabled, its state
is active or needs-attention, the provider does not rest, and neither a confirmation nor consent is
awaited; likewise it sends.
Rows are switched off rather than deleted: their lease tokens fence workers that hold them still.
"""

from sqlalchemy.orm import Session

from tasks.mailboxes import queries


def refresh_lanes(session: Session, mailbox_id: int) -> None:
    """Make the lanes of one mailbox agree with its state, switches and provider."""
    _refresh(session, mailbox_id=mailbox_id, provider_id=None, spread=0.0)


def refresh_provider_lanes(session: Session, provider_id: int) -> None:
    """Make the lanes of all mailboxes of a provider agree with it. Mailboxes that come back are
    spread over a minute, so that they do not stampede."""
    _refresh(session, mailbox_id=None, provider_id=provider_id, spread=60.0)


def _refresh(session: Session, *, mailbox_id: int | None, provider_id: int | None, spread: float) -> None:
    session.flush()
    given = {"mailbox_id": mailbox_id, "provider_id": provider_id, "spread": spread}
    session.execute(queries.REFRESH_SCHEDULE, given)
    session.execute(queries.REFRESH_OUTBOX_LANES, given)
