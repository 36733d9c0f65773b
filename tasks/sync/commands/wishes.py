"""Asking for changes: rights, what the wish means for each place of a message, and the queue."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from config.errors import Conflict, NotFound, UserError
from schema.tables.mailboxes import Mailbox
from schema.tables.sync import CommandKind, CommandState, MessageState
from tasks import mailboxes, schedule
from tasks.access import Actor
from tasks.sync.commands import queries
from tasks.sync.commands.overlay import Shown, shown_places
from tasks.wire import mime

MARKS = ("\\Seen", "\\Flagged", "\\Answered")
"""Flags that a message can be marked with."""
ENDED = frozenset({CommandState.TOLD, CommandState.DONE, CommandState.FAILED, CommandState.VOID})
"""States in which there is nothing to wait for."""


@dataclass(frozen=True, slots=True)
class Queued:
    """What was asked for. Not ``followed``: the mailbox is paused or the like, and it waits."""

    commands: tuple[UUID, ...]
    followed: bool


def mark(
    session: Session, actor: Actor, messages: Sequence[UUID], *, add: Sequence[str], remove: Sequence[str]
) -> Queued:
    """Set and take away flags of `MARKS` wherever these messages lie."""
    wrong = [flag for flag in (*add, *remove) if flag not in MARKS]
    if wrong or set(add) & set(remove) or not (add or remove):
        raise UserError("say which flags to set and which to take away, each once.")
    asked = _Asked(session, actor)
    for message in asked.messages(messages):
        for folder_id in dict.fromkeys(place.lies for place in message.places):
            asked.queue(message, CommandKind.MARK, folder_id, add=add, remove=remove)
    return asked.done()


def move(
    session: Session, actor: Actor, messages: Sequence[UUID], folder: str, source: str | None = None
) -> Queued:
    """Move messages to ``folder``; ``source`` is needed where one lies in several folders."""
    asked = _Asked(session, actor)
    for message in asked.messages(messages):
        target = asked.folder(message, folder)
        place = _one_place(message, target.id, folder, source)
        asked.queue(message, CommandKind.MOVE, place.lies, target.id)
    return asked.done()


def copy(session: Session, actor: Actor, messages: Sequence[UUID], folder: str) -> Queued:
    """Copy messages to ``folder``."""
    asked = _Asked(session, actor)
    for message in asked.messages(messages):
        target = asked.folder(message, folder)
        if any(place.folder_id == target.id for place in message.places):
            raise Conflict(f'message {message.uid} lies in "{folder}" already.')
        asked.queue(message, CommandKind.COPY, message.places[0].lies, target.id)
    return asked.done()


def delete(
    session: Session,
    actor: Actor,
    messages: Sequence[UUID],
    *,
    permanently: bool = False,
    source: str | None = None,
) -> Queued:
    """Move messages to Trash, or remove them for good; ``source`` is needed for the first where one lies
    in several folders, and confines the second."""
    asked = _Asked(session, actor)
    for message in asked.messages(messages):
        if not permanently:
            trash = asked.trash(message)
            if any(place.folder_id == trash.id for place in message.places):
                raise Conflict(
                    f'message {message.uid} lies in "{trash.name}" already; --permanently removes it.'
                )
            place = _one_place(message, trash.id, trash.name, source)
            asked.queue(message, CommandKind.MOVE, place.lies, trash.id)
            continue
        places = [place for place in message.places if source in (None, place.folder)]
        if not places:
            raise NotFound(f'message {message.uid} does not lie in "{source}".')
        for folder_id in dict.fromkeys(place.lies for place in places):
            asked.queue(message, CommandKind.DELETE, folder_id)
    return asked.done()


def append(
    session: Session, actor: Actor, address: str, folder: str, content: bytes, flags: Sequence[str] = ()
) -> Queued:
    """Put a message (RFC 5322) into a folder of a mailbox."""
    mailbox = mailboxes.get(session, address)
    mailboxes.require_change(session, actor, mailbox)
    if mime.read(content).message_id is None:
        raise UserError("the message has no Message-ID, so it could not be told whether it was appended.")
    asked = _Asked(session, actor)
    target = asked.folder_of(mailbox, folder)
    lines = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    asked.insert(mailbox, CommandKind.APPEND, target_id=target.id, content=lines, add=flags)
    return asked.done()


def ended(session: Session, commands: Sequence[UUID]) -> dict[UUID, tuple[CommandState, str | None]]:
    """Which of ``commands`` have ended, and with what reason; the others are absent."""
    rows = session.execute(queries.ENDED, {"uids": list(commands)})
    return {
        row.uid: (CommandState(row.state), row.last_error) for row in rows if CommandState(row.state) in ENDED
    }


@dataclass(frozen=True, slots=True)
class _Message:
    id: int
    uid: UUID
    mailbox: Mailbox
    places: Sequence[Shown]


class _Asked:
    """One request: messages looked up with the actor's right to change them, commands in order."""

    def __init__(self, session: Session, actor: Actor) -> None:
        self._session = session
        self._actor = actor
        self._mailboxes: dict[str, Mailbox] = {}
        self._folders: dict[int, Sequence[Any]] = {}
        self._commands: list[UUID] = []

    def messages(self, uids: Sequence[UUID]) -> list[_Message]:
        """Messages that are there, in this order. Raises `NotFound`, `PermissionDenied`."""
        rows = {row.uid: row for row in self._session.execute(queries.MESSAGES, {"uids": list(uids)})}
        for uid in uids:
            if uid not in rows:
                raise NotFound(f"there is no message {uid}. See `mailwright message list ADDRESS`.")
        for address in dict.fromkeys(row.address for row in rows.values()):
            mailbox = mailboxes.get(self._session, address)
            mailboxes.require_change(self._session, self._actor, mailbox)
            self._mailboxes[address] = mailbox
        places = shown_places(self._session, [row.id for row in rows.values()])
        for row in rows.values():
            if row.state == MessageState.DELETED or not places[row.id]:
                raise NotFound(f"message {row.uid} is deleted, or about to be.")
        return [
            _Message(row.id, row.uid, self._mailboxes[row.address], places[row.id])
            for row in (rows[uid] for uid in dict.fromkeys(uids))
        ]

    def folder(self, message: _Message, name: str) -> Any:
        """A folder of the message's mailbox."""
        return self.folder_of(message.mailbox, name)

    def folder_of(self, mailbox: Mailbox, name: str) -> Any:
        """A folder by its name; INBOX in any case. Raises `NotFound`."""
        for folder in self._of(mailbox):
            if folder.name == name or folder.name.upper() == name.upper() == "INBOX":
                if not folder.selectable:
                    raise UserError(f'folder "{name}" of {mailbox.address} cannot hold messages.')
                return folder
        names = ", ".join(f'"{folder.name}"' for folder in self._of(mailbox)) or "none known yet"
        raise NotFound(f'{mailbox.address} has no folder "{name}". It has {names}.')

    def trash(self, message: _Message) -> Any:
        """The folder with the special use \\Trash (RFC 6154). Raises `UserError` where there is none."""
        for folder in self._of(message.mailbox):
            if folder.special_use == "\\Trash" and folder.selectable:
                return folder
        raise UserError(
            f"{message.mailbox.address} has no Trash folder; --permanently removes the message for good."
        )

    def _of(self, mailbox: Mailbox) -> Sequence[Any]:
        if mailbox.id not in self._folders:
            rows = self._session.execute(queries.FOLDERS, {"mailbox_id": mailbox.id})
            self._folders[mailbox.id] = rows.all()
        return self._folders[mailbox.id]

    def queue(
        self,
        message: _Message,
        kind: CommandKind,
        folder_id: int,
        target_id: int | None = None,
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
    ) -> None:
        """Add a command about a message."""
        self.insert(
            message.mailbox,
            kind,
            message_id=message.id,
            folder_id=folder_id,
            target_id=target_id,
            add=add,
            remove=remove,
        )

    def insert(
        self,
        mailbox: Mailbox,
        kind: CommandKind,
        *,
        message_id: int | None = None,
        folder_id: int | None = None,
        target_id: int | None = None,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        content: bytes | None = None,
    ) -> None:
        """Add a row to the queue."""
        if not mailbox.receive:
            raise UserError(f"{mailbox.address} does not receive, so nothing can be changed on its server.")
        self._mailboxes[mailbox.address] = mailbox
        row = self._session.execute(
            queries.QUEUE,
            {
                "mailbox_id": mailbox.id,
                "kind": kind.value,
                "message_id": message_id,
                "folder_id": folder_id,
                "target_id": target_id,
                "add": list(add),
                "remove": list(remove),
                "content": content,
                "by": self._actor.name,
            },
        ).one()
        self._commands.append(row.uid)

    def done(self) -> Queued:
        """Make the mailboxes due now."""
        ids = sorted(mailbox.id for mailbox in self._mailboxes.values())
        _, followed = schedule.ask(self._session, ids)
        return Queued(tuple(self._commands), followed=len(followed) == len(ids))


def _one_place(message: _Message, target_id: int, target: str, source: str | None) -> Shown:
    if any(place.folder_id == target_id for place in message.places):
        raise Conflict(f'message {message.uid} lies in "{target}" already.')
    places = [place for place in message.places if source in (None, place.folder)]
    if not places:
        raise NotFound(f'message {message.uid} does not lie in "{source}".')
    if len({place.lies for place in places}) > 1:
        names = ", ".join(sorted({place.folder for place in places}))
        raise UserError(f"message {message.uid} lies in {names}: say with --from out of which to move it.")
    return places[0]
