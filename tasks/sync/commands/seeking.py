"""Searching Sent for mail in doubt, where the provider files it there itself.

What SEARCH does not find (some servers' search misses mail) is looked for among the newest messages.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final
from uuid import UUID

from tasks import outbound
from tasks.sync.folders import StoredFolder
from tasks.sync.work import Work
from tasks.wire import mime

NEWEST: Final = 200
"""UIDs at the end of the folder that are looked at one by one."""
MOST_BYTES: Final = 2**20
"""Of a header."""


def seek(work: Work, folder: StoredFolder, outbound_id: int) -> None:
    """Search a folder for the attempts of a message in doubt, and tell what that came to."""
    with work.reading() as session:
        asked = outbound.wanted(session, outbound_id)
    if asked is None:
        return
    message_id, attempts = asked
    selected = work.imap.select(folder.wire_name)
    found = _attempts(work, work.imap.search_message_id(message_id)).intersection(attempts)
    if not found and selected.uidnext is not None:
        newest = range(max(1, selected.uidnext - NEWEST), selected.uidnext)
        found = _attempts(work, newest).intersection(attempts)
    work.imap.unselect()
    work.commit(partial(outbound.sought, outbound_id=outbound_id, attempts=attempts, present=sorted(found)))


def attempts_of(headers: Iterable[tuple[str, str]]) -> set[UUID]:
    """The attempts that a message's header names."""
    found = set()
    for name, value in headers:
        if name.lower() == outbound.ATTEMPT_HEADER.lower():
            try:
                found.add(UUID(value.strip()))
            except ValueError:
                continue  # not ours
    return found


def _attempts(work: Work, uids: Sequence[int]) -> set[UUID]:
    """The attempts that messages of the open folder are copies of."""
    found: set[UUID] = set()
    if uids:
        for fetched in work.imap.fetch(uids, max_bytes=MOST_BYTES, headers_only=True):
            if fetched.body is not None:
                found |= attempts_of(mime.read(fetched.body).headers)
            work.progress()
    return found
