"""FETCH, streamed: two commands on the wire, one response in memory.

::

    wire     FETCH 1 ─── FETCH 2 ──────── FETCH 3 ─── …
    read              └─ answers to 1 ─ OK 1 ─┴─ answers to 2 ─ OK 2 ─ …
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tasks.wire.imap.channel import Channel
from tasks.wire.imap.errors import CommandRefused, ImapError, ProtocolError, clean, refusal
from tasks.wire.imap.items import FetchItems, fetch_items
from tasks.wire.imap.scanner import Continuation, Data, Status
from tasks.wire.imap.values import Fetched, Identified, Outline, SeenFlags

AHEAD: Final = 2
"""FETCH commands on the wire at once."""
NO_ROOM: Final = (
    "A message of {size} bytes has no room in the directory for temporary files ({error}). Make room there, "
    "or set TMPDIR to where there is."
)


@dataclass(slots=True)
class _Asked:
    tag: bytes
    answers: int = 0


def _unheard(_response: Data) -> None:
    """For commands whose other untagged responses do not matter."""


def stream(
    channel: Channel, commands: Iterator[bytes], aside: Callable[[Data], None] = _unheard
) -> Iterator[FetchItems]:
    """Send ``commands`` (UID FETCH …) and yield what each FETCH response tells, as it comes; ``aside`` is
    told the other untagged ones.

    NO after some answers means that the rest of that command cannot be had, and the next goes on
    (RFC 9051 §6.4.5). NO without any, and BAD, are raised when all that was asked has been answered.
    """
    asked: deque[_Asked] = deque()
    refused: ImapError | None = None
    while True:
        while refused is None and len(asked) < AHEAD and (command := next(commands, None)):
            asked.append(_Asked(channel.send(command)))
        if not asked:
            break
        match channel.response():
            case Status(tag=tag) as status if tag == asked[0].tag:
                answers = asked.popleft().answers
                refused = refused or _judge(status, answers, bool(asked))
            case Data() as data:
                items = fetch_items(data) if refused is None else None
                if items is None:
                    aside(data)
                del data  # the body is then held by ``items`` alone
                if items is not None and items.uid is not None:
                    asked[0].answers += 1
                    yield items
                    del items
            case Continuation():
                raise ProtocolError("The server asks for more where nothing is to come.")
            case _:
                pass
    if refused is not None:
        raise refused


def _judge(status: Status, answers: int, more: bool) -> ImapError | None:
    if status.kind == "OK" or (status.kind == "NO" and answers):
        return None
    error = refusal("FETCH", status.response_code, clean(status.text))
    if more and not isinstance(error, CommandRefused):
        raise error
    return error


def fetched(items: FetchItems, max_bytes: int) -> Fetched | None:
    """A message out of a FETCH response; None where it brought no body (NIL, or an unsolicited one)."""
    body = items.body
    if items.uid is None or body is None:
        return None
    oversize = body.size > max_bytes or (body.data is None and body.lost is None)
    return Fetched(
        uid=items.uid,
        flags=items.flags or (),
        modseq=items.modseq,
        internal_at=items.internal_at,
        size=items.size,
        body=None if oversize else body.data,
        oversize=oversize,
        email_id=items.email_id,
        thread_id=items.thread_id,
        lost=None if oversize or body.lost is None else NO_ROOM.format(size=body.size, error=body.lost),
    )


def seen_flags(items: FetchItems) -> SeenFlags | None:
    """Who a FETCH response is about, and its flags."""
    if items.uid is None:
        return None
    return SeenFlags(items.uid, items.flags, items.modseq)


def identified(items: FetchItems) -> Identified | None:
    """Who a FETCH response is about, where it tells what its content is known by and its flags."""
    if items.uid is None or items.email_id is None or items.flags is None:
        return None
    return Identified(items.uid, items.email_id, items.size, items.flags, items.modseq)


def outline(items: FetchItems) -> Outline | None:
    """An outline out of a FETCH response, as far as it told."""
    if items.uid is None:
        return None
    return Outline(items.uid, items.size, items.internal_at, items.flags or ())
