"""One watched mailbox: its socket, its dialogue, and its clock. Thousands of these live in one loop."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from config.errors import TransientError
from tasks.watch.values import Claimed, Times
from tasks.wire import net
from tasks.wire.imap import Disconnected
from tasks.wire.imap.idle import Idle

CHUNK: Final = 1 << 14
"""Bytes read at once; also the most in a TLS record."""
MOST_CHUNKS: Final = 64
"""Read from one session before the others have their turn."""
NO_WAITING: Final = net.Budget(0.0)
"""A loop waits for no single socket: a few words that are not taken at once mean a dead connection."""


@dataclass(frozen=True, slots=True)
class Read:
    """What reading came to: news, ``more`` that may lie unread where the kernel does not show it, the end."""

    changed: bool = False
    more: bool = False
    ended: TransientError | None = None


class Watching:
    """Times are monotonic seconds. ``due`` is when `tick` is to be called."""

    __slots__ = ("_heard_at", "_idle", "_sock", "_spoke_at", "began", "claimed", "due", "fd")

    def __init__(self, claimed: Claimed, sock: net.AnySocket, idle: Idle, now: float) -> None:
        """Take over ``sock``, which rests in a selected folder."""
        self.claimed = claimed
        self.began = self._heard_at = self._spoke_at = self.due = now
        self.fd = sock.fileno()
        self._sock = sock
        self._idle = idle
        sock.budget = NO_WAITING

    @property
    def mailbox_id(self) -> int:
        """Whose session this is."""
        return self.claimed.mailbox_id

    def begin(self, early: bytes, times: Times, now: float) -> Read:
        """Start waiting for news; ``early`` was read from the socket before."""
        try:
            self._say(self._idle.begin(), times, now)
            return self._take(early, times, now) if early else Read()
        except TransientError as error:
            return Read(ended=error)

    def read(self, times: Times, now: float) -> Read:
        """Read what there is. TLS holds bytes that the kernel does not show any more: until it wants more."""
        changed = False
        try:
            for _ in range(MOST_CHUNKS):
                data = self._sock.recv_now(CHUNK)
                if data is None:
                    return Read(changed)
                took = self._take(data, times, now)
                changed = changed or took.changed
                if took.ended is not None:
                    return Read(changed, ended=took.ended)
        except TransientError as error:
            return Read(changed, ended=error)
        return Read(changed, more=True)

    def tick(self, times: Times, now: float) -> Read:
        """Do what is due: renew, probe, or give up an answer that does not come."""
        if self._idle.waits:
            return Read(ended=Disconnected(f"The server gave no answer for {now - self._spoke_at:.0f} s."))
        self.due = self._next(times)
        if self.due <= now:
            try:
                self._say(self._idle.poke(), times, now)
            except TransientError as error:
                return Read(ended=error)
        return Read()

    def leave(self) -> None:
        """Say goodbye without waiting for an answer, and hang up. Never raises."""
        with suppress(TransientError, OSError):
            self._sock.send(self._idle.leave())
        self.cut()

    def cut(self) -> None:
        """Hang up. Never raises."""
        with suppress(OSError):
            self._sock.close()

    def _take(self, data: bytes, times: Times, now: float) -> Read:
        self._heard_at = now
        waited = self._idle.waits
        heard = self._idle.feed(data)
        if heard.send:
            self._say(heard.send, times, now)
        elif waited and not self._idle.waits:
            self.due = self._next(times)
        return Read(heard.changed, ended=heard.ended)

    def _say(self, words: bytes, times: Times, now: float) -> None:
        self._spoke_at = now
        if words:
            self._sock.send(words)
        self.due = now + times.answer if self._idle.waits else self._next(times)

    def _next(self, times: Times) -> float:
        if not self._idle.idles:
            return self._spoke_at + times.noop
        return min(self._spoke_at + times.renew, self._heard_at + times.probe)
