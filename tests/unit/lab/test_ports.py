"""Processes under supervision end with all their children."""

import os
import sys
from pathlib import Path

import pytest

from lab.ports import LabError, Supervised, free_ports, session_members, wait_for_port, wait_until

STUBBORN = (
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'\n"
    "subprocess.Popen([sys.executable, '-c', child])\n"
    "print('up', flush=True)\n"
    "time.sleep(600)\n"
)


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


def test_a_port_that_never_opens_is_named() -> None:
    (port,) = free_ports(1)
    with pytest.raises(LabError, match=f"127.0.0.1:{port}"):
        wait_for_port("127.0.0.1", port, 0.1)


def test_a_process_that_will_not_end_is_ended_with_its_child(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = Supervised([sys.executable, "-c", STUBBORN], log=log)
    process.wait_ready(lambda: "up" in log.read_text())
    wait_until(lambda: len(process.members()) == 2, 10, "two processes")

    process.stop(seconds=0.5)

    assert session_members(process.pid) == []
    assert not process.running
    process.stop()


def test_a_process_that_ends_at_once_is_told_with_its_words(tmp_path: Path) -> None:
    process = Supervised([sys.executable, "-c", "raise SystemExit('no luck')"], log=tmp_path / "log")

    with pytest.raises(LabError, match="no luck"):
        process.wait_ready(lambda: False)


def test_members_knows_our_own_session() -> None:
    assert os.getpid() in session_members(os.getsid(0))
