"""Run the benchmarks: all of them, or the one that is named.

Each ``bench/NAME.py`` is a program of its own whose last line on standard output is one JSON object with
``name``, ``ours``, ``peer``, ``ratio``, ``unit`` and ``setup``. They run one after another, and that line is
kept in ``bench/results/``; ``make docs`` makes the page of benchmarks of it.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
RESULTS: Final = HERE / "results"
FIELDS: Final = frozenset({"name", "ours", "peer", "ratio", "unit", "setup"})


def main(names: list[str]) -> int:
    """Run the named benchmarks (none named: all) and return 0 if each gave its result line."""
    known = benchmarks()
    unknown = [name for name in names if name not in known]
    if unknown:
        there = ", ".join(known) or "none yet"
        print(f"bench: there is no {unknown[0]!r}. There is: {there}.", file=sys.stderr)
        return 1
    failed = [name for name in names or known if not run(known[name])]
    if failed:
        print(f"bench: no result from {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def benchmarks() -> dict[str, Path]:
    """The benchmarks by name: the programs beside this one that say they are one by their ``main``."""
    paths = sorted(path for path in HERE.glob("*.py") if path.name not in {"run.py", "__init__.py"})
    return {path.stem: path for path in paths if "\ndef main(" in path.read_text()}


def run(program: Path) -> bool:
    """Run one benchmark, pass its output on as it comes, judge its last line and keep it."""
    last = ""
    command = [sys.executable, "-P", "-u", str(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    if child.returncode != 0 or not is_result(last):
        return False
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{program.stem}.json").write_text(last + "\n")
    return True


def is_result(line: str) -> bool:
    """True when a line is a benchmark's result."""
    try:
        result = json.loads(line)
    except json.JSONDecodeError:
        return False
    return isinstance(result, dict) and result.keys() >= FIELDS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
