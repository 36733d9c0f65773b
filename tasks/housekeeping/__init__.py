"""What tidies up: pauses that ended, epochs that were replaced, keys that are out of date."""

from tasks.housekeeping.engine import tidy

__all__ = ["tidy"]
