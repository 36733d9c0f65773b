"""Whose turn it is: claims, leases with fencing tokens, intervals and back-off."""

from tasks.schedule.engine import (
    ask,
    claim,
    fail,
    fence,
    finish,
    finish_unchanged,
    hasten,
    postpone,
    release,
    settled,
)
from tasks.schedule.heartbeat import Heartbeat
from tasks.schedule.values import Claim, Held

__all__ = [
    "Claim",
    "Heartbeat",
    "Held",
    "ask",
    "claim",
    "fail",
    "fence",
    "finish",
    "finish_unchanged",
    "hasten",
    "postpone",
    "release",
    "settled",
]
