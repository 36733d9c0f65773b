"""``up``, ``down`` and ``status`` in a process of their own, as the command line calls them.

driver.py HOME up|detach [NAME=PYTHON-CODE …]     driver.py HOME down     driver.py HOME status
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from config.errors import UserError
from worker.stack import Addresses, Program, down, status, up


def say(line: str) -> None:
    print(line, flush=True)


def prepare(addresses: Addresses) -> None:
    """Stand in for the migrations; refuse when the test wants it."""
    if refusal := os.environ.get("TEST_REFUSAL"):
        raise UserError(refusal)


def main(home: Path, verb: str, given: list[str]) -> int:
    """Do one verb; the exit code is the command line's."""
    if verb == "status":
        say(json.dumps([asdict(each) for each in status(home)]))
        return 0
    if verb == "down":
        return down(home, say)
    pairs = (word.partition("=") for word in given)
    programs = [Program(name, (sys.executable, "-c", code), grace=3) for name, _, code in pairs]
    return up(home, programs, detach=verb == "detach", echo=say, prepare=prepare)


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
    except UserError as error:
        print(f"mailwright: {error}", file=sys.stderr)
        sys.exit(1)
