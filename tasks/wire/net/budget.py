"""The response timeout: a budget of waiting over a whole dialogue.

Waiting for an answer uses it up, and so does a write that the other side does not take. The time
in which our own bytes flow, or in which we compute, does not. One budget serves many operations,
so a server that drips its answer byte by byte stretches nothing.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Budget:
    """``seconds`` of waiting; ``clock`` gives monotonic seconds."""

    __slots__ = ("_clock", "_waited", "seconds")

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._waited = 0.0

    @property
    def waited(self) -> float:
        """Seconds waited so far."""
        return self._waited

    def left(self) -> float:
        """Seconds of waiting that are left, never below zero."""
        return max(0.0, self.seconds - self._waited)

    def now(self) -> float:
        """The clock's seconds."""
        return self._clock()

    def spend(self, seconds: float) -> None:
        """Count ``seconds`` as waited."""
        self._waited += seconds

    def give_back(self, seconds: float) -> None:
        """Take back up to ``seconds`` counted before: they were the flow of our own bytes."""
        self._waited = max(0.0, self._waited - seconds)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waited."""
        begun = self._clock()
        try:
            yield
        finally:
            self.spend(self._clock() - begun)
