"""What a worker has loaded before its first task: every process carries it for as long as it lives."""

import subprocess
import sys

PROGRAM = """
import sys
import worker.cli.main, worker.cli.run
from worker.app import TASK_MODULES
for module in TASK_MODULES:
    __import__(module)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_a_worker_loads_nothing_that_only_other_programs_need() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    loaded = set(done.stdout.split())
    assert {"celery", "psycopg", "tasks"} <= loaded
    assert loaded.isdisjoint({"alembic", "mako", "fastapi", "uvicorn", "flower", "lab", "tests", "pytest"})
