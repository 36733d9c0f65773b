"""The pages tell what the code is: the generated ones word for word, the event reference type by type."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from config.settings import Settings
from schema.tables.outbound import RecipientState
from tasks.outbound.outcomes import event_of
from worker.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
EVENTS = DOCS / "events.md"
EVENT_TYPE = re.compile(r"(?:command|message|outbound|mailbox|folder|provider|sync)\.[a-z_]+\Z")
SQL_EVENT_TYPE = re.compile(
    r"events_pending[^;]*?'((?:message|outbound|mailbox|folder|provider|sync)\.[a-z_]+)'", re.S
)
NO_EVENTS = {"debug", "info", "warning", "error", "audit", "_audit"}
NAMED_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


def event_types() -> Iterator[str]:
    """Every type that code records: literals of files that make a `NewEvent`, and of our SQL."""
    for path in sorted((ROOT / "tasks").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(called(node) == "NewEvent" for node in ast.walk(tree)):
            yield from literals(tree)
    for path in sorted((ROOT / "schema").rglob("*.sql")):
        yield from SQL_EVENT_TYPE.findall(path.read_text(encoding="utf-8"))
    yield from (event_of(state) for state in RecipientState)
    yield from ("outbound.expired", "outbound.cancelled")  # named after the state in outbound's `end`


def literals(node: ast.AST) -> Iterator[str]:
    """Strings that look like a type, but for what is said to the log and to the audit trail."""
    if called(node) in NO_EVENTS:
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and EVENT_TYPE.match(node.value):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from literals(child)


def called(node: ast.AST) -> str | None:
    """The last part of the name that a call calls."""
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name
    return None


def test_generated_pages_are_up_to_date() -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, content in generator().pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != content
    ]

    assert stale == [], "run `make docs`"


def test_every_setting_stands_in_the_example_and_in_the_reference() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    reference = (DOCS / "configuration.md").read_text(encoding="utf-8")

    for name in Settings.model_fields:
        assert re.search(rf"^#MAILWRIGHT_{name.upper()}=", example, re.M), name
        assert f"| `MAILWRIGHT_{name.upper()}` |" in reference, name


def test_every_command_stands_in_the_reference() -> None:
    told = headings(DOCS / "cli.md")

    assert {f"mailwright-{name}" for name in COMMANDS} <= told


def test_every_event_type_stands_in_the_event_reference() -> None:
    recorded = set(event_types())
    told = set(re.findall(r"^### `([a-z_.]+)`$", EVENTS.read_text(encoding="utf-8"), re.M))

    assert {"message.received", "outbound.queued", "mailbox.connected", "folder.reset"} <= recorded
    assert recorded - told == set(), "recorded and not described"
    assert told - recorded == set(), "described and never recorded"


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))],
    ids=lambda page: page.name,
)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), target
        assert not anchor or anchor in headings(other), target


def test_the_readme_names_the_first_doors() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    for door in ("make demo", "make test", "make up"):
        assert door in text
    for page in DOCS.glob("*.md"):
        assert f"docs/{page.name}" in text, f"README does not lead to {page.name}"


def test_every_test_named_in_the_lessons_exists() -> None:
    named = NAMED_TEST.findall((DOCS / "lessons.md").read_text(encoding="utf-8"))
    files = {name: ROOT / "tests" / name for name, _ in named}
    defined = {
        name: {
            node.name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
        if path.exists()
        else set()
        for name, path in files.items()
    }

    assert len(named) > 60
    assert [f"{name}::{test}" for name, test in named if test not in defined[name]] == []


def test_every_lesson_has_a_test() -> None:
    text = (DOCS / "lessons.md").read_text(encoding="utf-8").partition("## Not met yet")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| w")]

    assert len(rows) > 50
    assert [row for row in rows if not NAMED_TEST.search(row)] == []
