"""What processes leave behind is told from what others do."""

import os
import signal
import sys
from pathlib import Path

from lab.ports import Supervised, wait_until
from lab.traces import traces_of

LISTENER = (
    "import socket, subprocess, sys, time\n"
    "sock = socket.create_server(('127.0.0.1', 0))\n"
    "child = 'import time; time.sleep(600)'\n"
    "subprocess.Popen([sys.executable, '-c', child], start_new_session=True)\n"
    "print(sock.getsockname()[1], flush=True)\n"
    "time.sleep(600)\n"
)


def test_processes_their_children_and_their_ports_are_left_until_they_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = Supervised([sys.executable, "-c", LISTENER], log=log)
    try:
        process.wait_ready(lambda: log.read_text().endswith("\n"))
        traces = traces_of([process.pid])
        assert sorted(traces.left()) == sorted(
            [*(f"process {pid}" for pid, _ in traces.processes), f"port {int(log.read_text())}"]
        )
        assert len(traces.processes) == 2
    finally:
        child = next(pid for pid, _ in traces.processes if pid != process.pid)
        process.stop()

    assert traces.left() == [f"process {child}"]
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: not traces.left(), 10, "the child gone")
