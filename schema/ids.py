"""Outward identifiers: UUIDv7 (RFC 9562 §5.7), sortable by time, not guessable."""

import os
import time
from uuid import UUID


def uuid7() -> UUID:
    """Return a new UUIDv7: 48 bits of Unix milliseconds, then 74 random bits."""
    return uuid7s(1)[0]


def uuid7s(count: int) -> list[UUID]:
    """So many of one millisecond, at the cost of one system call."""
    milliseconds = time.time_ns() // 1_000_000 & (2**48 - 1)
    random = os.urandom(10 * count)
    return [_uuid7(milliseconds, random[at : at + 10]) for at in range(0, len(random), 10)]


def _uuid7(milliseconds: int, random: bytes) -> UUID:
    bits = int.from_bytes(random, "big")
    return UUID(
        int=milliseconds << 80 | 0x7 << 76 | (bits >> 68 & 0xFFF) << 64 | 0b10 << 62 | bits & (2**62 - 1)
    )
