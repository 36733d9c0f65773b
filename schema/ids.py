"""Outward identifiers: UUIDv7 (RFC 9562 §5.7), sortable by time, not guessable."""

import os
import time
from uuid import UUID


def uuid7() -> UUID:
    """Return a new UUIDv7: 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    bits = int.from_bytes(os.urandom(10), "big")
    return UUID(
        int=(milliseconds & (2**48 - 1)) << 80
        | 0x7 << 76
        | (bits >> 68 & 0xFFF) << 64
        | 0b10 << 62
        | bits & (2**62 - 1)
    )
