"""The values that rights are spoken in."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a user by name, or the system itself, which tasks act as."""

    name: str
    system: bool = False


SYSTEM = Actor("system", system=True)
