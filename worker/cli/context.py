"""What a command is given: the actor, the way to print, and a runtime loaded and opened on first use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from config.settings import Settings, load_settings

if TYPE_CHECKING:
    from schema.database import Database
    from tasks.access import Actor
    from tasks.runtime import Runtime

MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"])
"""How a time is given."""


@dataclass(slots=True)
class Cli:
    """One invocation of the command line."""

    as_json: bool
    user: str
    _settings: Settings | None = field(default=None, repr=False)
    _runtime: Runtime | None = field(default=None, repr=False)
    _database: Database | None = field(default=None, repr=False)

    @property
    def actor(self) -> Actor:
        """Who the command acts as."""
        from tasks.access import Actor

        return Actor(self.user)

    @property
    def settings(self) -> Settings:
        """The settings, read once."""
        if self._settings is None:
            self._settings = load_settings()
        return self._settings

    @property
    def db(self) -> Database:
        """The database, for commands that need no key ring."""
        if self._runtime is not None:
            return self._runtime.db
        if self._database is None:
            from schema.database import Database

            self._database = Database(self.settings.require_database_url(), pool=2)
        return self._database

    @property
    def runtime(self) -> Runtime:
        """Database and key ring. Raises `UserError` where either is not set up."""
        if self._runtime is None:
            from tasks.runtime import Runtime

            self._runtime = Runtime.open(self.settings)
        return self._runtime

    def close(self) -> None:
        """Close what was opened."""
        if self._runtime is not None:
            self._runtime.close()
        if self._database is not None:
            self._database.close()

    def show(self, row: Mapping[str, Any]) -> None:
        """Print one thing: JSON, or aligned ``field  value`` lines."""
        if self.as_json:
            click.echo(to_json(row))
            return
        width = max((len(name) for name in row), default=0)
        for name, value in row.items():
            click.echo(f"{name:<{width}}  {plain(value)}")

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], empty: str) -> None:
        """Print many: JSON lines, or a table of ``columns``; ``empty`` where there are none."""
        if self.as_json:
            for row in rows:
                click.echo(to_json(row))
            return
        if not rows:
            click.echo(empty)
            return
        cells = [[plain(row.get(column)) for column in columns] for row in rows]
        widths = [
            min(60, max(len(name), *(len(line[i]) for line in cells))) for i, name in enumerate(columns)
        ]
        click.echo(
            "  ".join(name.upper().ljust(width) for name, width in zip(columns, widths, strict=True)).rstrip()
        )
        for line in cells:
            click.echo(
                "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            )

    def say(self, sentence: str, **facts: Any) -> None:
        """Tell what was done: the sentence to a person, ``facts`` as JSON to a program."""
        click.echo(to_json(facts) if self.as_json else sentence)


pass_cli = click.make_pass_decorator(Cli)


def to_json(value: Any) -> str:
    """One line of JSON; times in ISO 8601, ids as text."""
    return json.dumps(value, default=_jsonable, ensure_ascii=False)


def plain(value: Any) -> str:
    """A value as one line of text for a terminal: control characters shown as ``?``."""
    match value:
        case None:
            text = "-"
        case bool():
            text = "yes" if value else "no"
        case datetime():
            text = value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case list() | tuple():
            text = ", ".join(plain(item) for item in value) or "-"
        case dict():
            text = to_json(value)
        case _:
            text = str(value)
    return "".join(c if c.isprintable() else "?" for c in text)


def _jsonable(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case bytes():
            return value.hex()
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")
