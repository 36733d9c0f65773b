"""The reckoning: what the servers have, against what Postgres says, for every mailbox and folder."""

from collections import Counter
from collections.abc import Iterable

from lab.crash.stack import CrashStack

PLACES = """
    SELECT p.mailbox_id, f.name AS folder, encode(sha256(r.raw), 'hex') AS digest
    FROM mailwright.places p
    JOIN mailwright.folder_epochs e ON e.id = p.epoch_id AND e.state = 'current'
    JOIN mailwright.folders f ON f.id = e.folder_id AND f.gone_at IS NULL
    LEFT JOIN mailwright.raw_messages r ON r.message_id = p.message_id
    WHERE p.mailbox_id = ANY(:mailboxes)
"""

COUNTS = """
    SELECT b.address,
           (SELECT count(*) FROM mailwright.messages m
            WHERE m.mailbox_id = b.id AND m.state = 'present') AS present,
           (SELECT count(*) FROM mailwright.messages m
            WHERE m.mailbox_id = b.id AND m.state = 'missing') AS missing,
           (SELECT count(*) FROM mailwright.messages m
            WHERE m.mailbox_id = b.id AND m.state = 'present'
              AND (SELECT count(*) FROM mailwright.places p
                   JOIN mailwright.folder_epochs e ON e.id = p.epoch_id AND e.state = 'current'
                   WHERE p.message_id = m.id) <> 1) AS not_once,
           (SELECT count(*) FROM mailwright.places p
            JOIN mailwright.folder_epochs e ON e.id = p.epoch_id AND e.state = 'current'
            WHERE p.mailbox_id = b.id) AS places
    FROM mailwright.mailboxes b WHERE b.id = ANY(:mailboxes)
"""

MOVING = """
    SELECT b.address, s.lease_until > now() AS leased,
           (SELECT count(*) FROM mailwright.messages m
            WHERE m.mailbox_id = b.id AND m.state = 'missing') AS missing,
           (SELECT count(*) FROM mailwright.places p
            JOIN mailwright.folder_epochs e ON e.id = p.epoch_id AND e.state = 'current'
            WHERE e.mailbox_id = b.id) AS places
    FROM mailwright.mailboxes b JOIN mailwright.schedule s ON s.mailbox_id = b.id
    WHERE b.id = ANY(:mailboxes)
"""

EVENTS = """(
    SELECT uid, type, mailbox_id, subject FROM mailwright.events
    UNION ALL SELECT uid, type, mailbox_id, subject FROM mailwright.events_pending
)"""
"""Every event, with a position or without one yet."""


def on_server(stack: CrashStack, address: str) -> Counter[tuple[str, str]]:
    """Each file of a mailbox, as (folder, digest of what IMAP serves)."""
    box = stack.dovecot.maildir(address)
    return Counter((folder, digest) for folder in box.folders() for digest in box.digests(folder))


def in_database(stack: CrashStack, address: str) -> Counter[tuple[str, str]]:
    """Each place of a mailbox, as (folder, digest of the stored bytes)."""
    rows = stack.rows(PLACES, mailboxes=[stack.mailboxes[address]])
    return Counter((row.folder, row.digest) for row in rows)


def at_rest(stack: CrashStack, addresses: Iterable[str]) -> bool:
    """Whether as many places are stored as the server has files, and nothing is on its way."""
    counts = stack.rows(MOVING, mailboxes=[stack.mailboxes[address] for address in addresses])
    return all(
        row.missing == 0 and not row.leased and row.places == filed(stack, row.address) for row in counts
    )


def assert_stored_once(stack: CrashStack, addresses: Iterable[str]) -> None:
    """Every file on the server is one place and one message, byte for byte; nothing else is there."""
    for address in addresses:
        ours, theirs = in_database(stack, address), on_server(stack, address)
        assert theirs - ours == Counter(), f"{address}: on the server, not stored"
        assert ours - theirs == Counter(), f"{address}: stored, not on the server (or stored twice)"
        (row,) = stack.rows(COUNTS, mailboxes=[stack.mailboxes[address]])
        assert row.present == theirs.total(), f"{address}: {row.present} messages, {theirs.total()} files"
        assert (row.missing, row.not_once) == (0, 0), f"{address}: messages without their one place"


def assert_announced_once(stack: CrashStack, addresses: Iterable[str], received: int, deleted: int) -> None:
    """Each message that came has one ``message.received``, each expunged one ``message.deleted``."""
    boxes = [stack.mailboxes[address] for address in addresses]
    for kind, wanted in (("message.received", received), ("message.deleted", deleted)):
        rows = stack.rows(
            f"SELECT e.subject, count(*) AS n, bool_or(m.id IS NOT NULL) AS known FROM {EVENTS} e "
            "LEFT JOIN mailwright.messages m ON m.uid::text = e.subject "
            "WHERE e.type = :kind AND e.mailbox_id = ANY(:boxes) GROUP BY 1",
            kind=kind,
            boxes=boxes,
        )
        assert [row.subject for row in rows if row.n != 1] == [], f"{kind} more than once"
        assert all(row.known for row in rows), f"{kind} for a message that is not there"
        assert len(rows) == wanted, f"{len(rows)} events {kind} for {wanted} messages"


def assert_positions_without_gaps(stack: CrashStack) -> None:
    """The relay gave each event one position, none left out."""
    stack.wait(lambda: not stack.one("SELECT count(*) FROM mailwright.events_pending"), "events in the log")
    (row,) = stack.rows(
        "SELECT count(*) AS n, count(DISTINCT uid) AS uids, coalesce(max(position), 0) AS top, "
        "coalesce(min(position), 1) AS bottom FROM mailwright.events"
    )
    assert row.n == row.uids == row.top - row.bottom + 1


def filed(stack: CrashStack, address: str) -> int:
    """How many messages there are in the server's files of a mailbox."""
    box = stack.dovecot.maildir(address)
    return sum(len(box.files(folder)) for folder in box.folders())
