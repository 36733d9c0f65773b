"""The page of benchmarks: what `make bench` measured last, with the method in each program's own words."""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

BENCH: Final = Path(__file__).resolve().parent.parent / "bench"
KNOWN: Final = ("name", "ours", "peer", "ratio", "unit", "setup", "growth")

TARGETS: Final[Mapping[str, str]] = {
    "initial_sync": "2.5 times mbsync",
    "nothing_changed": "2,000 a second and 4 times the peer; 300 with 12 folders",
    "few_changed": "at most 5 ms a changed mailbox",
    "watch": "at most 30 KiB a session; p99 under 300 ms",
    "flag_storm": "under 3 s",
    "big_mailbox": "the first 1,000 in 2 s; at most 150 MB",
    "read": "2.5 times below 8 KB, 8 times above 60 KB",
    "outbound": "3 times the peer as it comes, 1.8 times its best",
    "enqueue": "SQL 4,000; HTTP 500, in batches 3,000; Celery 250, in batches 2,000",
    "fairness": "p99 under 2 s",
    "backlog": "at most 1.5 times",
    "deadline": "5.0 to 5.5 s of waiting",
}
"""What each is held to, in the order of the page."""

HEAD: Final = """\
# Benchmarks

{mark}

`make bench` runs all of these, `make bench BENCH=watch` one: the real thing, whole, beside a named peer in
the same run. The last line that each prints is kept in `bench/results/`, and this page is made of them.
A ratio is the median of alternating runs, because a machine's speed drifts; compare ratios, and absolute
figures only within one line. All were measured on 2 cores with 24 GiB, Linux, Python 3.11, with servers on
loopback. What is not reached yet is written as plainly as what is.

| bench | ours | peer | ratio | unit | held to |
|---|---|---|---|---|---|
"""


def benchmarks(mark: str) -> str:
    """The page; ``mark`` says how it is made. Raises `LookupError` for a bench that is held to nothing."""
    programs = {path.stem for path in BENCH.glob("*.py") if "\ndef main(" in path.read_text()} - {"run"}
    if programs != set(TARGETS):
        raise LookupError(f"TARGETS of docs/figures.py lacks or invents: {programs ^ set(TARGETS)}")
    results = {name: result_of(name) for name in TARGETS}
    lines = [HEAD.format(mark=mark).rstrip()]
    for name, result in results.items():
        cells = [result[key] if result else "not measured yet" for key in ("ours", "peer", "ratio", "unit")]
        lines.append(f"| [{name}](#{name}) | {' | '.join(map(str, cells))} | {TARGETS[name]} |")
    for name, result in results.items():
        lines += ["", f"## {name}", "", *_described(name, result)]
    return "\n".join(lines) + "\n"


def result_of(name: str) -> dict[str, Any]:
    """The line that a bench printed last; empty where it is not measured yet."""
    path = BENCH / "results" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _described(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    method = ast.get_docstring(ast.parse((BENCH / f"{name}.py").read_text())) or ""
    yield "\n\n".join(part for part in method.split("\n\n") if not part.startswith(" "))
    if not result:
        return
    yield ""
    for key, value in result.items():
        if key not in KNOWN:
            yield f"- `{key}`: {_told(value)}"
    for key, value in result["setup"].items():
        yield f"- {key.replace('_', ' ')}: {_told(value)}"
    growth = result["growth"]
    for part, points in growth.items() if isinstance(growth, dict) else [("", growth)]:
        yield from _plot(" ".join(filter(None, [name, part])), result["unit"], points)


def _plot(title: str, unit: str, points: Sequence[Any]) -> Iterator[str]:
    pairs = [(each["size"], each["figure"]) if isinstance(each, dict) else each[:2] for each in points]
    figures = [figure for _, figure in pairs]
    sizes = ", ".join(f'"{size:,}"' for size, _ in pairs)
    yield from ("", "```mermaid", "xychart-beta", f'    title "{title}: how it grows"')
    yield f"    x-axis [{sizes}]"
    yield f'    y-axis "{unit.partition(";")[0]}" 0 --> {max(figures) * 1.2:.4g}'
    yield f"    bar [{', '.join(f'{figure:g}' for figure in figures)}]"
    yield "```"


def _told(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {_told(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(_told(each) for each in value)
    return str(value)
