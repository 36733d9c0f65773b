"""Templates kept for all who send: a name, and the words of subject, text and HTML.

A message names one, and gets its words at the door: what was accepted does not change when a template does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from schema.tables.access import Operation
from tasks import access
from tasks.access import Actor, clean_name, quoted
from tasks.outbound.errors import MessageRefused, TemplateUnknown
from tasks.outbound.values import read, sources

MOST: Final = 10_000

_ONE = "SELECT uid, name, subject, text, html, created_at, changed_at FROM mailwright.templates"

_STORE = text("""
    INSERT INTO mailwright.templates (name, subject, text, html) VALUES (:name, :subject, :text, :html)
    ON CONFLICT (name) DO UPDATE SET subject = excluded.subject, text = excluded.text, html = excluded.html,
                                     changed_at = now()
    RETURNING uid, xmax = 0 AS fresh
""")


@dataclass(frozen=True, slots=True)
class Template:
    """A stored template."""

    name: str
    subject: str | None
    text: str | None
    html: str | None
    created_at: datetime
    changed_at: datetime


def store(actor: Actor, session: Session, name: str, words: Mapping[str, str | None]) -> bool:
    """Keep a template under a name, in the place of one that has it; returns whether the name is new.
    ``words``: subject, text and html. Raises `MessageRefused` for what could never be sent."""
    _require_manage(session, actor)
    from tasks.outbound.rendering import check  # here, because Jinja2 takes long to load

    name = clean_name(name, "template")
    if any("\0" in (part or "") for part in words.values()):
        raise MessageRefused("the template holds a NUL character, which mail cannot carry.")
    parts = sources(words)
    check(parts)
    given = {"name": name, "subject": parts.subject, "text": parts.text, "html": parts.html}
    row = session.execute(_STORE, given).one()
    action = "template.added" if row.fresh else "template.changed"
    access.audit(session, actor, action, "template", row.uid, name, {})
    return bool(row.fresh)


def remove(actor: Actor, session: Session, name: str) -> None:
    """Forget a template; what was accepted with it goes all the same. Raises `TemplateUnknown`."""
    _require_manage(session, actor)
    gone = session.execute(
        text("DELETE FROM mailwright.templates WHERE name = :name RETURNING uid"), {"name": name}
    )
    row = gone.one_or_none()
    if row is None:
        raise _unknown(name)
    access.audit(session, actor, "template.removed", "template", row.uid, name, {})


def show(actor: Actor, session: Session, name: str) -> Template:
    """One template. Raises `TemplateUnknown`."""
    _require_view(session, actor)
    return _template(_found(session, name))


def listed(actor: Actor, session: Session) -> list[Template]:
    """All templates, by name."""
    _require_view(session, actor)
    rows = session.execute(text(f"{_ONE} ORDER BY name LIMIT {MOST}"))
    return [_template(row) for row in rows]


def preview(actor: Actor, session: Session, name: str, variables: Mapping[str, Any]) -> dict[str, str | None]:
    """What a template makes of variables. Raises `TemplateUnknown`, `VariableMissing`, `TemplateInvalid`."""
    _require_view(session, actor)
    message = filled(session, {"to": "nobody@example.org", "template": name, "variables": dict(variables)})
    made = read(message)
    has = message["template"]
    return {
        "subject": made.subject if "subject" in has else None,
        "text": made.text,
        "html": made.html,
    }


def filled(session: Session, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The message with a template's words in the place of its name. Raises `TemplateUnknown`."""
    name = message.get("template")
    if not isinstance(name, str):
        return message
    row = _found(session, name)
    words = {"name": row.name, "subject": row.subject, "text": row.text, "html": row.html}
    return {**message, "template": {part: value for part, value in words.items() if value is not None}}


def _found(session: Session, name: str) -> Row[Any]:
    row = None
    if access.storable(name):
        row = session.execute(text(f"{_ONE} WHERE name = :name"), {"name": name}).one_or_none()
    if row is None:
        raise _unknown(name)
    return row


def _unknown(name: str) -> TemplateUnknown:
    return TemplateUnknown(f"there is no template {quoted(name)}. See: mailwright template list")


def _template(row: Row[Any]) -> Template:
    return Template(row.name, row.subject, row.text, row.html, row.created_at, row.changed_at)


def _require_manage(session: Session, actor: Actor) -> None:
    access.require(session, actor, Operation.MANAGE_MAILBOXES, "change templates")


def _require_view(session: Session, actor: Actor) -> None:
    seeing = (Operation.SEND_MESSAGES, Operation.MANAGE_MAILBOXES, Operation.VIEW_OPERATIONS)
    access.require_any(session, actor, seeing, "see templates")
