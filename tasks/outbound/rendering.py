"""A template and its variables become subject, text and HTML: Jinja2's sandbox, in a language made smaller.

    {{ order.number }}   {{ "%.2f"|format(price) }}   {% if paid %} … {% endif %}   {% for line in lines %} …

There are names, filters, tests, comparisons, arithmetic with numbers, ``if`` and ``for``; no calls, no
macros, no assignments, no includes, no lists written in the template. So a template reaches nothing but the
variables, which are JSON, and what it costs is counted: each turn of a loop, each filter and each piece of
output is charged to one `Allowance`. In HTML every variable is escaped unless it says ``|safe``; what goes
into the subject is checked as every header is.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache, partial, wraps
from typing import Any, Final, TypeVar

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import UndefinedError
from jinja2.filters import FILTERS
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from tasks.outbound.errors import TemplateInvalid, VariableMissing
from tasks.outbound.values import Sources

MOST_STEPS: Final = 200_000
"""Turns of loops, filters and pieces of output together."""
MOST_CHARACTERS: Final = 5 * 2**20
"""Characters that filters and output make, together."""
MOST_SECONDS: Final = 2.0
"""Of this thread's processor time."""
KEPT: Final = 64
"""Compiled templates that a process remembers."""

_NODES: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Name, nodes.Const,
    nodes.CondExpr, nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.Keyword, nodes.Test, nodes.Compare,
    nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul,
    nodes.Div, nodes.FloorDiv, nodes.Mod,
)  # fmt: skip
_WORDS: Final[Mapping[type[nodes.Node], str]] = {
    nodes.Call: "a call",
    nodes.Concat: "~ (write the values one after the other)",
    nodes.Assign: "set",
    nodes.AssignBlock: "set",
    nodes.Pow: "**",
    nodes.List: "a list of its own",
    nodes.Dict: "an object of its own",
}
_LOOP: Final = frozenset(
    {"index", "index0", "first", "last", "length", "revindex", "revindex0", "previtem", "nextitem"}
)
_OF_TEXT: Final = ("e", "escape", "safe", "upper", "lower", "capitalize", "title", "truncate", "urlencode")
_OF_NUMBERS: Final = ("abs", "float", "int")
_OF_ALL: Final = ("default", "d", "length", "count", "first", "last", "items", "dictsort", "sort")
_WIDE: Final = re.compile(r"%[^a-zA-Z%]*(?:\d{4}|\*)")
_MOST_DIGITS: Final = 10
_LARGEST: Final = 10**15

Scalar = str | int | float | bool | None
T = TypeVar("T")


@dataclass(slots=True)
class Allowance:
    """What one rendering may cost."""

    steps: int = MOST_STEPS
    characters: int = MOST_CHARACTERS
    until: float = field(default_factory=lambda: time.thread_time() + MOST_SECONDS)

    def charge(self, characters: int = 0) -> None:
        """Pay for one step. Raises `TemplateInvalid` where nothing is left."""
        self.steps -= 1
        self.characters -= characters
        if self.steps < 0 or self.characters < 0:
            raise TemplateInvalid(
                f"the template makes more than {MOST_CHARACTERS} characters, or takes more than "
                f"{MOST_STEPS} steps."
            )
        if time.thread_time() > self.until:
            raise TemplateInvalid(f"the template takes more than {MOST_SECONDS:g} s to render.")


_LEFT: ContextVar[Allowance] = ContextVar("what the rendering under way may still cost")


def render(sources: Sources, variables: Mapping[str, Any]) -> Sources:
    """Fill a template in. Raises `VariableMissing` for what it needs and was not given, `TemplateInvalid`
    for what is no template, does what none may, or costs too much; both name the part."""
    token = _LEFT.set(Allowance())
    try:
        return Sources(
            _rendered("subject", sources.subject, variables),
            _rendered("text", sources.text, variables),
            _rendered("html", sources.html, variables),
        )
    finally:
        _LEFT.reset(token)


def check(sources: Sources) -> None:
    """Refuse what no variables could make right. Raises `TemplateInvalid`."""
    token = _LEFT.set(Allowance())
    try:
        for part in ("subject", "text", "html"):
            source = getattr(sources, part)
            if source is not None:
                _within(part, partial(_compiled, source, part == "html"))
    finally:
        _LEFT.reset(token)


def _rendered(part: str, source: str | None, variables: Mapping[str, Any]) -> str | None:
    if source is None:
        return None
    return _within(part, lambda: "".join(_pieces(_compiled(source, part == "html"), variables)))


def _pieces(template: Template, variables: Mapping[str, Any]) -> Iterator[str]:
    allowance = _LEFT.get()
    for piece in template.generate(variables):
        allowance.charge(len(piece))
        yield piece


def _within(part: str, work: Callable[[], T]) -> T:
    """Do it, and tell Jinja2's faults, and Python's own with odd templates, as ours."""
    try:
        return work()
    except TemplateInvalid as error:
        raise TemplateInvalid(f"{part}: {error}") from None
    except UndefinedError as error:
        raise VariableMissing(f"{part}: {error}. Give it in variables.") from None
    except TemplateSyntaxError as error:
        raise TemplateInvalid(f"{part}, line {error.lineno}: {error.message}") from None
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise TemplateInvalid(f"{part}: {str(error)[:200] or type(error).__name__}") from None
    except (RecursionError, SyntaxError, MemoryError):
        raise TemplateInvalid(f"{part}: it is nested too deeply.") from None


@lru_cache(KEPT)
def _compiled(source: str, html: bool) -> Template:
    environment = _Sandbox(
        autoescape=html,
        undefined=StrictUndefined,
        finalize=_shown,
        keep_trailing_newline=True,
        optimized=False,
    )
    environment.filters = _filters()
    environment.globals = {}
    tree = environment.parse(source)
    _require_small(tree)
    for loop in list(tree.find_all(nodes.For)):
        loop.iter = nodes.Filter(loop.iter, "_each", [], [], None, None, lineno=loop.lineno)
    code = environment.compile(tree)
    return Template.from_code(environment, code, {})


def _require_small(tree: nodes.Template) -> None:
    targets = {id(child) for loop in tree.find_all(nodes.For) for child in (loop.target, loop)}
    for node in tree.find_all(nodes.Node):
        if isinstance(node, nodes.Tuple) and id(node) in targets:
            continue
        if not isinstance(node, _NODES) or (isinstance(node, nodes.For) and node.recursive):
            words = _WORDS.get(type(node), type(node).__name__.lower())
            raise TemplateInvalid(f"line {node.lineno}: a template has no {words}.")
        if isinstance(node, nodes.Name) and node.ctx == "load" and node.name.startswith("_"):
            raise TemplateInvalid(f'line {node.lineno}: "{node.name}" is no name for a variable.')


class _Sandbox(ImmutableSandboxedEnvironment):
    """Variables are JSON: a name after a dot is a member of an object, never an attribute of Python's."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext) and attribute in _LOOP:
            return getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, StrictUndefined):
            str(obj)  # raises: it is not there
        if isinstance(obj, Mapping) and isinstance(argument, str) and argument in obj:
            return obj[argument]
        if (
            isinstance(obj, list | tuple | str)
            and isinstance(argument, int)
            and -len(obj) <= argument < len(obj)
        ):
            return obj[argument]
        return self.undefined(obj=obj, name=argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        for value in (left, right):
            if isinstance(value, StrictUndefined):
                str(value)
            if not isinstance(value, int | float) or abs(value) > _LARGEST:
                raise TemplateInvalid(f"{operator} is for numbers, of at most {_LARGEST:.0e}.")
        return super().call_binop(context, operator, left, right)


def _shown(value: Any) -> Any:
    """What is written out: text and numbers; nothing for null."""
    if value is None:
        return ""
    if isinstance(value, Scalar | StrictUndefined):
        return value
    raise TemplateInvalid("a list or an object cannot be written out; go through it with for.")


def _filters() -> dict[str, Callable[..., Any]]:
    theirs: Mapping[str, Any] = FILTERS
    found = {name: _charged(theirs[name], scalars=True) for name in (*_OF_TEXT, *_OF_NUMBERS)}
    found |= {name: _charged(theirs[name], scalars=False) for name in _OF_ALL}
    ours: Mapping[str, Callable[..., Any]] = {
        "trim": _trim,
        "replace": _replace,
        "round": _round,
        "format": _format,
    }
    found |= {name: _charged(function, scalars=True) for name, function in ours.items()}
    return {**found, "join": _charged(_join, scalars=False), "_each": _each}


def _charged(function: Callable[..., Any], *, scalars: bool) -> Callable[..., Any]:
    """A filter that pays for what it makes; ``scalars``: it takes text and numbers only."""
    passed = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        for value in (*given[passed:], *named.values()) if scalars else ():
            if not isinstance(value, Scalar | StrictUndefined):
                raise TemplateInvalid(
                    f"{function.__name__.removeprefix('do_').strip('_')} is for text and numbers."
                )
        made = function(*given, **named)
        _LEFT.get().charge(len(made) if isinstance(made, str) else 0)
        return made

    return call


def _each(value: Any) -> Iterator[Any]:
    """What a loop goes through, each turn paid for."""
    allowance = _LEFT.get()
    for item in value:
        allowance.charge()
        yield item


def _trim(value: Any) -> str:
    return _text(value).strip()


def _replace(value: Any, old: Any, new: Any) -> str:
    whole, sought, put = _text(value), str(old), str(new)
    _LEFT.get().charge(len(whole) + whole.count(sought) * len(put))
    return whole.replace(sought, put)


def _round(value: Any, digits: Any = 0) -> float | int:
    wanted = max(0, min(int(digits), _MOST_DIGITS))
    return round(float(value), wanted) if wanted else round(float(value))


def _format(value: Any, *given: Any, **named: Any) -> str:
    whole = _text(value)
    if _WIDE.search(whole):
        raise TemplateInvalid("format: a field has at most 999 characters.")
    widest = max((len(str(each)) for each in (*given, *named.values())), default=0)
    _LEFT.get().charge(len(whole) + whole.count("%") * (widest + 999))
    return whole % (named or given)


def _join(value: Any, separator: Any = "") -> str:
    allowance, between = _LEFT.get(), _text(separator)
    pieces = []
    for item in value:
        shown = _shown(item)
        pieces.append(shown if isinstance(shown, Markup) else str(shown))
        allowance.charge(len(pieces[-1]) + len(between))
    return between.join(pieces)


def _text(value: Any) -> str:
    """A ``str``; one marked as safe stays so, and escapes what is put into it."""
    return value if isinstance(value, Markup) else str(value)
