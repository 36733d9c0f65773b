"""Whether a UID on the server is the message that a command means: asked before anything is moved or
deleted, for a UIDVALIDITY can repeat and a wrong UID deletes the wrong mail."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from tasks.sync.commands.values import Change
from tasks.sync.work import Work
from tasks.wire import mime
from tasks.wire.bulk import sha256
from tasks.wire.imap import Fetched, NoRoom, ranges


class Identity(StrEnum):
    """What lies under a UID."""

    SAME = "same"
    OTHER = "other"
    ABSENT = "absent"


def identify(work: Work, wanted: Mapping[int, Change]) -> dict[int, Identity]:
    """Hold what the selected folder has under these UIDs against the stored messages: Message-ID and
    size, or, where these do not settle it, the digest of all bytes."""
    headers = {f.uid: f for f in _headers(work, list(wanted))}
    found: dict[int, Identity] = {}
    doubtful: list[int] = []
    lost: str | None = None
    for uid, change in wanted.items():
        verdict = judge(change, headers[uid]) if uid in headers else None
        if verdict is None:
            doubtful.append(uid)
        else:
            found[uid] = verdict
    if doubtful:
        there = {seen.uid for seen in work.imap.flags(ranges(doubtful))}
        found |= {uid: Identity.ABSENT if uid not in there else Identity.OTHER for uid in doubtful}
        for whole in _whole(work, [uid for uid in doubtful if uid in there]):
            lost = lost or whole.lost
            if whole.body is not None and sha256(whole.body) == wanted[whole.uid].digest:
                found[whole.uid] = Identity.SAME
    if lost is not None:
        raise NoRoom(lost)
    return found


def judge(change: Change, header: Fetched) -> Identity | None:
    """What the header tells; None where all bytes must be looked at. Of a mailbox that keeps only headers
    the digest is that of the header."""
    if header.body is None:
        return None
    if sha256(header.body) == change.digest:
        return Identity.SAME
    name = mime.read(header.body).message_id
    if name is None or change.name is None:
        return None
    if name != change.name:
        return Identity.OTHER
    return Identity.SAME if header.size == change.size else None


def _headers(work: Work, uids: Sequence[int]) -> list[Fetched]:
    limit = work.runtime.settings.max_message_bytes
    return list(work.imap.fetch(uids, max_bytes=limit, headers_only=True)) if uids else []


def _whole(work: Work, uids: Sequence[int]) -> Iterator[Fetched]:
    """Bodies one at a time, so that no more than one is held."""
    for uid in uids:
        yield from work.imap.fetch([uid], max_bytes=work.runtime.settings.max_message_bytes)
