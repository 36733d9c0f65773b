"""A worker whose Celery falls over when the broker goes away begins anew, by itself."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from config.settings import Settings
from lab.ports import wait_until
from worker.stack import Valkey

FALLING: Final = """
from pathlib import Path
from celery.worker.consumer import Consumer
from worker.cli.main import main

told = Consumer.on_connection_error_after_connected

def fall(self, error):
    fallen = Path("fallen")
    if not fallen.exists():
        fallen.touch()
        raise AttributeError("'NoneType' object has no attribute 'hostname'")
    told(self, error)

Consumer.on_connection_error_after_connected = fall
main()
"""
"""What kombu's Redis transport raises at some losses of the broker (kombu #582), raised at the first."""


def test_a_consumer_that_falls_over_is_begun_anew_in_the_same_process(
    settings: Settings, tmp_path: Path
) -> None:
    assert settings.database_url is not None
    assert settings.key_ring is not None
    log = tmp_path / "worker.log"
    valkey = Valkey(tmp_path / "valkey")
    valkey.start()
    environment = {name: each for name, each in os.environ.items() if not name.startswith("MAILWRIGHT_")}
    environment |= {
        "MAILWRIGHT_HOME": str(tmp_path),
        "MAILWRIGHT_DATABASE_URL": settings.database_url.get_secret_value(),
        "MAILWRIGHT_KEY_RING": settings.key_ring.get_secret_value(),
        "MAILWRIGHT_BROKER_URL": valkey.url,
    }
    command = [sys.executable, "-P", "-c", FALLING, "worker"]
    with log.open("wb") as output:
        worker = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=output, stderr=output)
    try:
        wait_until(lambda: log.read_text().count(" ready.") == 1, 60, "the worker")
        valkey.kill()
        valkey.start()
        wait_until(lambda: log.read_text().count(" ready.") == 2, 60, "the worker to begin anew")
        assert worker.poll() is None
        assert "Unrecoverable error" in log.read_text()

        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
        worker.wait()
        valkey.discard()
