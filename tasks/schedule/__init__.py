"""Whose turn it is: claims, leases with fencing tokens, intervals, back-off, breakers and slots."""

from tasks.schedule.breakers import answered, fault, forget, slow, try_now, untried
from tasks.schedule.engine import (
    ask,
    claim,
    fail,
    fence,
    finish,
    finish_unchanged,
    followed,
    hasten,
    postpone,
    release,
    settled,
    unwatched,
)
from tasks.schedule.heartbeat import Heartbeat
from tasks.schedule.values import Claim, Held

__all__ = [
    "Claim",
    "Heartbeat",
    "Held",
    "answered",
    "ask",
    "claim",
    "fail",
    "fault",
    "fence",
    "finish",
    "finish_unchanged",
    "followed",
    "forget",
    "hasten",
    "postpone",
    "release",
    "settled",
    "slow",
    "try_now",
    "untried",
    "unwatched",
]
