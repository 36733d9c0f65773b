"""Whether a UID on the server is the message that a command means: asked before anything is moved or
deleted, for a UIDVALIDITY can repeat and a wrong UID deletes the wrong mail."""

import hashlib
from collections.abc import Mapping, Sequence
from enum import StrEnum

from tasks.sync.commands.values import Change
from tasks.sync.work import Work
from tasks.wire import mime
from tasks.wire.imap import Fetched, ranges


class Identity(StrEnum):
    """What lies under a UID."""

    SAME = "same"
    OTHER = "other"
    ABSENT = "absent"


def identify(work: Work, wanted: Mapping[int, Change]) -> dict[int, Identity]:
    """Hold what the selected folder has under these UIDs against the stored messages: Message-ID and
    size, or, where these do not settle it, the digest of all bytes."""
    headers = {f.uid: f for f in _fetch(work, list(wanted), headers_only=True)}
    found: dict[int, Identity] = {}
    doubtful: list[int] = []
    for uid, change in wanted.items():
        verdict = judge(change, headers[uid]) if uid in headers else None
        if verdict is None:
            doubtful.append(uid)
        else:
            found[uid] = verdict
    if doubtful:
        there = {seen.uid for seen in work.imap.flags(ranges(doubtful))}
        found |= {uid: Identity.ABSENT if uid not in there else Identity.OTHER for uid in doubtful}
        for whole in _fetch(work, [uid for uid in doubtful if uid in there], headers_only=False):
            body = whole.body
            if body is not None and hashlib.sha256(body).digest() == wanted[whole.uid].digest:
                found[whole.uid] = Identity.SAME
    return found


def judge(change: Change, header: Fetched) -> Identity | None:
    """What the header tells; None where all bytes must be looked at. Of a mailbox that keeps only headers
    the digest is that of the header."""
    if header.body is None:
        return None
    if hashlib.sha256(header.body).digest() == change.digest:
        return Identity.SAME
    name = mime.read(header.body).message_id
    if name is None or change.name is None:
        return None
    if name != change.name:
        return Identity.OTHER
    return Identity.SAME if header.size == change.size else None


def _fetch(work: Work, uids: Sequence[int], *, headers_only: bool) -> list[Fetched]:
    """Bodies one at a time, so that no more than one is held."""
    if not uids:
        return []
    limit = work.runtime.settings.max_message_bytes
    if headers_only:
        return list(work.imap.fetch(uids, max_bytes=limit, headers_only=True))
    return [whole for uid in uids for whole in work.imap.fetch([uid], max_bytes=limit)]
