"""A template says what its variables say, reaches nothing else, and ends in time."""

import email
import html
import time
from email import policy
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import UserError
from tasks.outbound.errors import TemplateInvalid, VariableMissing
from tasks.outbound.rendering import MOST_SECONDS, check, render
from tasks.outbound.values import LONGEST_TEMPLATE, Sources
from tests.unit.outbound.test_compose import INJECTED, TEXT, UID, composed, lines, parsed

ORDER = {
    "name": "Jörg <b>",
    "paid": True,
    "price": 19.9,
    "lines": [{"items": 2, "what": "tea"}, {"items": 1, "what": "a & b"}],
}


def text(source: str, **variables: Any) -> str:
    return render(Sources(None, source, None), variables).text or ""


def html_of(source: str, **variables: Any) -> str:
    return render(Sources(None, None, source), variables).html or ""


def refusal(source: str, **variables: Any) -> tuple[str, str]:
    with pytest.raises(UserError) as refused:
        text(source, **variables)
    return refused.value.code, str(refused.value)


def test_variables_conditions_loops_and_filters() -> None:
    source = (
        '{{ name|upper }}: {{ "%.2f"|format(price) }}{% if paid %}, paid{% endif %}\n'
        "{% for line in lines %}{{ loop.index }}. {{ line.items }} x {{ line.what }}"
        "{{ '' if loop.last else ', ' }}{% endfor %}"
    )

    assert text(source, **ORDER) == "JÖRG <B>: 19.90, paid\n1. 2 x tea, 2. 1 x a & b"


def test_html_escapes_variables_and_text_does_not() -> None:
    assert text("{{ name }}", **ORDER) == "Jörg <b>"
    assert html_of("<p>{{ name }}", **ORDER) == "<p>Jörg &lt;b&gt;"
    assert html_of("<p>{{ name|safe }}", **ORDER) == "<p>Jörg <b>"
    assert html_of("{{ xs|join('<') }}", xs=["&", 1]) == "&amp;&lt;1"


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("{{ missing }}", "missing"),
        ("{{ order.missing }}", "missing"),
        ("{% for x in missing %}{% endfor %}", "missing"),
    ],
)
def test_a_missing_variable_is_named(source: str, named: str) -> None:
    code, words = refusal(source, order={})

    assert code == "template_variable_missing"
    assert named in words
    assert text("{{ missing|default('none') }}{% if missing is defined %}x{% endif %}") == "none"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ lines.append }}",
        "{{ name.upper }}",
        "{{ loop.__class__ }}",
        "{% for x in lines %}{{ loop.__init__ }}{% endfor %}",
        "{% for x in lines %}{{ loop._iterator }}{% endfor %}",
    ],
)
def test_nothing_of_python_is_reached(source: str) -> None:
    assert refusal(source, **ORDER)[0] == "template_variable_missing"


@pytest.mark.parametrize(
    "source",
    [
        "{{ range(9) }}",
        "{{ name.upper() }}",
        "{{ cycler('a') }}",
        "{% set a = 1 %}",
        "{% set a %}x{% endset %}",
        "{% macro a() %}{{ a() }}{% endmacro %}",
        "{% include 'x' %}",
        "{% import 'x' as x %}",
        "{% extends 'x' %}",
        "{% block x %}{% endblock %}",
        "{% filter upper %}x{% endfilter %}",
        "{% autoescape false %}x{% endautoescape %}",
        "{% with a = 1 %}{% endwith %}",
        "{% for x in lines recursive %}{% endfor %}",
        "{{ 2 ** 9 }}",
        "{{ 'a' ~ 'b' }}",
        "{{ [1, 2] }}",
        "{{ {'a': 1} }}",
        "{{ (1, 2) }}",
        "{{ lines[1:] }}",
        "{{ _x }}",
        "{{ name|pprint }}",
        "{{ name|center(9) }}",
        "{{ name|nosuch }}",
        "{{ name is nosuch }}",
        "{{ name",
        "{% if %}",
        "{% nosuch %}",
        "{{ " + "9" * 9000 + " }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% if paid %}" * 500 + "{% endif %}" * 500,
        "{{ 'x' * 1000000000 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%*d'|format(1000000000, 1) }}",
        "{{ name + 1 }}",
        "{{ 1 / 0 }}",
        "{{ -name }}",
        "{{ lines }}",
        "{{ lines|upper }}",
        "{{ lines|join }}",
        "{{ 1000000000000000 * 1000000000000000 * 2 }}",
    ],
)  # fmt: skip
def test_what_a_template_may_not_is_refused_in_a_sentence(source: str) -> None:
    code, words = refusal(source, **ORDER)

    assert code == "template_invalid"
    assert words.startswith("text")
    assert "\n" not in words


LONG = "a" * 250_000


@pytest.mark.parametrize(
    ("source", "variables"),
    [
        ("{% for a in xs %}" * 6 + "{% endfor %}" * 6, {"xs": list(range(1000))}),
        ("{% for a in xs %}" * 4 + "x" + "{% endfor %}" * 4, {"xs": list(range(100))}),
        ("{{ x|replace('a', x) }}", {"x": LONG}),
        ("{{ x|replace('', x) }}", {"x": LONG}),
        ("{{ xs|join(x) }}", {"x": LONG, "xs": [1] * 1000}),
        ("{{ x" + "|title|e" * 9000 + " }}", {"x": "&" * 200_000}),
        ("{% if " + " and ".join(["x|upper == x|lower|upper"] * 5000) + " %}{% endif %}", {"x": LONG}),
        ("{{ x }}" * 9000, {"x": LONG}),
        ("{{ '" + "%s" * 9000 + "'|format(x) }}", {"x": LONG}),
    ],
)
def test_a_bomb_goes_off_in_nobodys_hands(source: str, variables: dict[str, Any]) -> None:
    begun = time.thread_time()

    assert refusal(source, **variables)[0] == "template_invalid"
    assert time.thread_time() - begun < 4 * MOST_SECONDS  # compiling comes on top


def test_a_template_is_checked_before_it_is_kept() -> None:
    check(Sources("{{ a }}", "{{ b.c }}", "<p>{{ d|join }}"))
    with pytest.raises(UserError) as refused:
        check(Sources("{{ a", "x", None))
    assert refused.value.code == "template_invalid"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
WORDS = [
    "{{a}}", "{{a.b}}", "{{a[0]}}", "{% for a in a %}", "{% endfor %}", "{% if a %}", "{% else %}",
    "{% endif %}", "{{a|", "upper", "join", "first", "sort", "dictsort", "items", "length", "replace('',a)",
    "round(2)", "int", "format(a)", "truncate(3)", "urlencode", "trim", "e", "safe", "}}", "{{a+1}}",
    "{{a==a}}", "{{loop.last}}", "{{a is defined}}", "{#", "#}", "{%raw%}", "a", "|", "{{", "\n",
]  # fmt: skip
PIECES = st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=12).map("".join)


@settings(max_examples=400, deadline=None)
@given(PIECES, VALUES)
def test_any_template_and_any_variable_give_text_or_a_refusal(source: str, value: Any) -> None:
    try:
        made = render(Sources(source, source, source), {"a": value})
    except (TemplateInvalid, VariableMissing):
        return
    assert all(isinstance(part, str) for part in (made.subject, made.text, made.html))


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_a_variable_arrives_as_it_is_in_text_and_shown_as_it_is_in_html(value: str) -> None:
    template = {"subject": "Hello", "text": "{{ a }}", "html": "<p>{{ a }}</p>"}
    made = parsed({"to": "bob@far.example", "template": template, "variables": {"a": value}})

    plain, rich = made.get_body(("plain",)), made.get_body(("html",))
    assert plain is not None
    assert rich is not None
    assert plain.get_content().replace("\r\n", "\n") == lines(value)
    shown = rich.get_content().replace("\r\n", "\n").removeprefix("<p>").removesuffix("</p>\n")
    assert "<" not in shown
    assert html.unescape(shown) == value.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("bad", INJECTED)
def test_no_variable_carries_a_line_end_into_the_subject(bad: str) -> None:
    template = {"subject": "Hello {{ a }}", "text": "x"}
    with pytest.raises(UserError) as refused:
        composed({"to": "bob@far.example", "template": template, "variables": {"a": bad}})
    assert refused.value.code == "header_injection"


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ({"template": {"text": "x"}, "subject": "y"}, "message_invalid"),
        ({"template": {"text": "x"}, "text": "y"}, "message_invalid"),
        ({"template": {"subject": "x"}}, "message_invalid"),
        ({"template": {"text": "x", "colour": "y"}}, "message_invalid"),
        ({"template": 5}, "message_invalid"),
        ({"variables": {"a": 1}}, "message_invalid"),
        ({"template": {"text": "x"}, "variables": [1]}, "message_invalid"),
        ({"template": {"subject": "a\nb", "text": "x"}}, "header_injection"),
        ({"template": {"text": "x" * (LONGEST_TEMPLATE + 1)}}, "message_too_big"),
        ({"template": {"text": "x"}, "variables": {"a": "x" * LONGEST_TEMPLATE}}, "message_too_big"),
        ({"template": {"text": "{{ a }}"}}, "template_variable_missing"),
        ({"template": {"subject": "{{ a }}", "text": "x"}, "variables": {"a": "x" * 999}}, "message_too_big"),
        ({"reply_to_message": "5"}, "message_invalid"),
        ({"reply_to_message": 5}, "message_invalid"),
        ({"reply_to_message": str(UID), "in_reply_to": "<a@b>"}, "message_invalid"),
    ],
)  # fmt: skip
def test_what_cannot_be_filled_in_is_refused_with_its_code(extra: dict[str, Any], code: str) -> None:
    with pytest.raises(UserError) as refused:
        composed({"to": "bob@far.example", **extra})
    assert refused.value.code == code


def test_an_inline_image_belongs_to_the_html_that_shows_it() -> None:
    image = {"name": "logo.png", "content_type": "image/png", "content": "iVBORw==", "content_id": "logo"}
    made = composed(
        {
            "to": "bob@far.example",
            "text": "x",
            "html": '<img src="cid:logo">',
            "attachments": [image, {"name": "Übersicht.pdf", "content": ""}],
        }
    )
    found = email.message_from_bytes(made.content, policy=policy.default)
    assert isinstance(found, EmailMessage)

    kinds = [part.get_content_type() for part in found.walk()]
    assert kinds == [
        "multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html",
        "image/png", "application/octet-stream",
    ]  # fmt: skip
    related = next(part for part in found.walk() if part.get_content_type() == "multipart/related")
    assert related.get_param("type") == "text/html"
    shown = next(part for part in found.walk() if part.get_content_type() == "image/png")
    assert (shown["content-id"], shown.get_content_disposition()) == ("<logo>", "inline")
    assert [part.get_filename() for part in found.iter_attachments()] == ["Übersicht.pdf"]
