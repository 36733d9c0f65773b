"""Waiting for one socket under a budget.

    bytes of ours still queued in the kernel:  look now and then how many left
        ≥ 4 KiB for each second waited  ──> the wait was flow, it is given back
        less, over the last 10 s        ──> the wait was a stall, it stays counted
    nothing of ours queued:                    all of it is waiting for an answer

The kernel's queue is looked at while reading too: a long message lies there for minutes on a slow
line after the last write returned.
"""

import array
import fcntl
import math
import select
import termios
from typing import Final

from tasks.wire.net.budget import Budget
from tasks.wire.net.errors import Disconnected, TimedOut
from tasks.wire.net.values import Endpoint, Security, Step

FLOWING: Final = 4096
"""Bytes a second; less is a stall."""
WINDOW: Final = 10.0
"""Seconds over which the flow is measured."""
LOOK: Final = 0.25
"""Seconds between two looks at the kernel's queue; the first looks come sooner."""
FIRST_LOOK: Final = 0.01

READ: Final = select.POLLIN
WRITE: Final = select.POLLOUT


class Patience:
    """The budget, the step and the endpoint of a socket; waits for it and words its errors."""

    __slots__ = ("_doubtful", "budget", "endpoint", "step")

    def __init__(self, endpoint: Endpoint, budget: Budget, step: Step = Step.CONNECT) -> None:
        self.endpoint = endpoint
        self.budget = budget
        self.step = step
        self._doubtful = 0.0  # seconds counted as waiting that flow may still give back

    def wait(self, fd: int, events: int) -> None:
        """Return when the socket is ready; raises `TimedOut` when the budget is used up."""
        poll = select.poll()
        poll.register(fd, events)
        if events == READ and self._ready(poll, FIRST_LOOK):
            return  # the common case: a server nearby answers at once
        queued = unsent(fd)
        look = FIRST_LOOK if queued else math.inf
        while self.budget.left() > 0:
            before = self.budget.waited
            ready = self._ready(poll, look)
            if queued:
                now_queued = unsent(fd)
                self._flowed(self.budget.waited - before, queued - now_queued)
                queued = now_queued
                look = min(LOOK, 2 * look) if queued else math.inf
            else:
                self._doubtful = 0.0
            if ready:
                return
        raise self.timed_out()

    def _ready(self, poll: select.poll, seconds: float) -> bool:
        budget = self.budget
        begun = budget.now()
        ready = poll.poll(1000 * min(seconds, budget.left()))
        budget.spend(budget.now() - begun)
        return bool(ready)

    def _flowed(self, seconds: float, sent: int) -> None:
        self._doubtful = min(WINDOW, self._doubtful + seconds)
        back = min(self._doubtful, max(0, sent) / FLOWING)
        self._doubtful -= back
        self.budget.give_back(back)

    def timed_out(self) -> TimedOut:
        """The error for a used-up budget."""
        remedy = "Check host, port and firewall, or allow a longer response timeout."
        if self.step is Step.GREETING and self.endpoint.security is not Security.TLS:
            remedy = "If this is its TLS port, choose SSL/TLS; otherwise try later or allow a longer timeout."
        elif self.step not in (Step.CONNECT, Step.TLS, Step.GREETING):
            remedy = "Try again later, or allow a longer response timeout."
        return TimedOut(
            f"{self.endpoint} kept us waiting {self.budget.seconds:g} s (at step {self.step})",
            self.endpoint,
            self.step,
            remedy,
        )

    def disconnected(self) -> Disconnected:
        """The error for a connection that ended."""
        remedy = "Try again later."
        if self.step in (Step.TLS, Step.GREETING):
            remedy = "Check that host, port and security fit together, or try again later."
        return Disconnected(
            f"{self.endpoint} ended the connection (at step {self.step})", self.endpoint, self.step, remedy
        )


def unsent(fd: int) -> int:
    """Bytes that we wrote and the other side has not acknowledged; 0 where the system does not tell."""
    count = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.TIOCOUTQ, count)
    except OSError:
        return 0
    return count[0]
