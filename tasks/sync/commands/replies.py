"""A reply that was sent marks what it answers as answered, once its copy turned up in Sent."""

from collections.abc import Collection

from sqlalchemy import text
from sqlalchemy.orm import Session

MARK_ANSWERED = text("""
    -- Wherever the answered messages lie and are not marked; indexes: messages_message_id, places.
    INSERT INTO mailwright.commands (mailbox_id, kind, message_id, folder_id, add_flags, requested_by)
    SELECT DISTINCT m.mailbox_id, 'mark', m.id, e.folder_id, ARRAY[cast(:flag AS text)], 'system'
    FROM mailwright.messages AS m
    JOIN mailwright.places AS p ON p.message_id = m.id
    JOIN mailwright.folder_epochs AS e ON e.id = p.epoch_id AND e.state = 'current'
    JOIN mailwright.folders AS f ON f.id = e.folder_id AND f.gone_at IS NULL
    WHERE m.mailbox_id = :mailbox_id AND m.message_id = ANY(:names) AND m.state = 'present'
      AND NOT :flag = ANY(p.flags)
""")


def mark_answered(session: Session, mailbox_id: int, names: Collection[str]) -> None:
    """Queue ``\\Answered`` for messages of a mailbox by their Message-IDs."""
    if names:
        asked = {"mailbox_id": mailbox_id, "names": list(names), "flag": "\\Answered"}
        session.execute(MARK_ANSWERED, asked)
