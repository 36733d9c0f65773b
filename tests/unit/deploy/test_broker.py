"""The broker holds nothing that matters, nothing for long, and nothing that comes back by itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

from config.settings import Settings
from worker.app import make_app, ticks

ROOT = Path(__file__).resolve().parents[3]
LONGEST = 60
"""Seconds that a bell may wait to be heard."""
SENDING = {"apply_async", "send_task", "delay"}


def sends() -> Iterator[tuple[str, ast.Call]]:
    """Where code puts a message into the broker."""
    for package in ("tasks", "worker"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in SENDING
                    and not isinstance(node.func.value, ast.Call)  # super().apply_async, of beat itself
                ):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_nothing_waits_in_the_broker_for_its_time_and_what_nobody_hears_ends() -> None:
    """Elsewhere an ETA beyond the visibility time-out ran a task up to 100 times."""
    found = dict(sends())
    assert len(found) >= 2

    for place, call in found.items():
        options = {word.arg: word.value for word in call.keywords}
        assert not options.keys() & {"eta", "countdown", "retry_policy"}, place
        expires = options.get("expires")
        assert isinstance(expires, ast.Constant), f"{place} sends what never ends"
        assert isinstance(expires.value, int), place
        assert expires.value <= LONGEST, place


def test_each_tick_ends_soon() -> None:
    for name, tick in ticks(Settings.model_validate({})).items():
        options = tick["options"]
        assert isinstance(options, dict)
        assert options["expires"] <= LONGEST, name
        assert not options.keys() & {"eta", "countdown"}, name


def test_a_task_is_acknowledged_before_it_runs_and_never_comes_back() -> None:
    """Elsewhere a task that killed its worker was redelivered for ever."""
    app = make_app(Settings.model_validate({"broker_url": "redis://localhost"}))

    assert app.conf.task_acks_late is False
    assert app.conf.task_reject_on_worker_lost is None
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.result_backend is None
    assert app.conf.accept_content == ["json"]
