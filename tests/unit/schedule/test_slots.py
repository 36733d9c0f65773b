"""A host's share of a process: a quarter until it proved to be quick, and again when it was slow."""

from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Settings
from tasks.runtime import Runtime
from tasks.schedule.slots import LATELY, PATIENCE, Slots, share


@dataclass
class Process:
    """What slots want of a runtime, and a clock to turn."""

    settings: Settings
    now: float = 0.0

    def clock(self) -> float:
        return self.now


@pytest.fixture
def process() -> Process:
    return Process(Settings(concurrency=8, _env_file=None))  # type: ignore[call-arg]


def slots_of(process: Process) -> Slots:
    return Slots(cast("Runtime", process), process.clock)


def taken(slots: Slots, host: str) -> int:
    """How many a host gets before it is full."""
    count = 0
    while host not in slots.full() and count < 100:
        slots.take(host)
        count += 1
    return count


def test_a_host_nobody_knows_gets_a_quarter(process: Process) -> None:
    assert taken(slots_of(process), "new.example") == 2


def test_a_quick_host_alone_gets_all_and_beside_others_leaves_a_quarter(process: Process) -> None:
    slots = slots_of(process)
    slots.waited("smtp", "quick.example", 0.1)
    assert taken(slots, "quick.example") == 8

    beside = slots_of(process)
    beside.waited("smtp", "quick.example", 0.1)
    beside.take("other.example")
    assert taken(beside, "quick.example") == 6


def test_a_host_that_made_us_wait_is_back_at_a_quarter_for_a_while(process: Process) -> None:
    slots = slots_of(process)
    slots.waited("smtp", "lame.example", 0.1)
    slots.waited("smtp", "lame.example", PATIENCE + 1)
    slots.waited("smtp", "lame.example", 0.1)
    assert slots.untold() == {("smtp", "lame.example")}
    assert slots.untold() == set()
    assert taken(slots, "lame.example") == 2

    process.now += LATELY
    slots.waited("smtp", "lame.example", 0.1)
    assert taken(slots, "lame.example") == 6  # 8, the two held included


def test_what_is_given_back_can_be_taken_again(process: Process) -> None:
    slots = slots_of(process)
    with slots.taken("a.example"), slots.taken("a.example"):
        assert slots.full() == ["a.example"]
    assert slots.full() == []
    assert slots.held == {}


@given(st.integers(1, 64), st.booleans(), st.booleans())
def test_everyone_gets_something_and_slow_hosts_at_most_a_quarter(
    slots: int, quick: bool, alone: bool
) -> None:
    found = share(slots, quick=quick, alone=alone)

    assert 1 <= found <= slots
    if not quick:
        assert found <= max(1, slots // 4)
    elif not alone and slots >= 4:
        assert slots - found >= slots // 4
