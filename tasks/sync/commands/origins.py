"""Who caused a change that the sync sees: a command of ours whose answer was lost or told too little, or
somebody at the server."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from schema.tables.sync import CommandKind
from tasks.sync.commands import queries
from tasks.sync.commands.values import OURS, THEIRS, agrees

LEAVING = frozenset({CommandKind.MOVE, CommandKind.DELETE})
ARRIVING = frozenset({CommandKind.MOVE, CommandKind.COPY})


def of_flags(session: Session, flags: Mapping[int, Sequence[str]]) -> dict[int, str]:
    """Origins of messages' new flags, by message."""
    ours = {
        row.message_id
        for row in _caused(session, flags)
        if row.kind == CommandKind.MARK and agrees(flags[row.message_id], row.add_flags, row.remove_flags)
    }
    return {message_id: OURS if message_id in ours else THEIRS for message_id in flags}


def of_leaving(session: Session, message_ids: Collection[int]) -> dict[int, str]:
    """Origins of messages' leaving a folder, or being deleted."""
    ours = {row.message_id for row in _caused(session, message_ids) if row.kind in LEAVING}
    return {message_id: OURS if message_id in ours else THEIRS for message_id in message_ids}


def of_arriving(session: Session, message_ids: Collection[int], folder_id: int) -> dict[int, str]:
    """Origins of known messages' turning up in a folder. What was told and is seen now has ended."""
    ours = {
        row.message_id
        for row in _caused(session, message_ids)
        if row.kind in ARRIVING and row.target_id == folder_id
    }
    if ours:
        seen(session, ours, ARRIVING)
    return {message_id: OURS if message_id in ours else THEIRS for message_id in message_ids}


def seen(session: Session, message_ids: Collection[int], kinds: Collection[CommandKind]) -> None:
    """End what was told of these messages: it is as wished."""
    session.execute(queries.SEEN, {"message_ids": list(message_ids), "kinds": [kind.value for kind in kinds]})


def _caused(session: Session, message_ids: Collection[int]) -> Sequence[Any]:
    if not message_ids:
        return []
    return session.execute(queries.CAUSED, {"message_ids": list(message_ids)}).all()
