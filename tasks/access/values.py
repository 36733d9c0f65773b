"""The values that rights are spoken in."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from config.errors import UserError
from schema.tables.access import Operation
from tasks.access.names import quoted

ADMINISTRATOR: Final = "administrator"
"""The built-in user that the command line acts as; it cannot be removed."""

MASKED: Final = "•••"
"""What an audit entry shows in place of a secret."""

LABELS: Final[Mapping[Operation, str]] = MappingProxyType(
    {
        Operation.MANAGE_ADMINISTRATION: "Access to 'Access rights' workspace",
        Operation.MANAGE_MAILBOXES: "Access to 'Mailboxes' workspace",
        Operation.READ_MESSAGES: "Read messages of any mailbox",
        Operation.SEND_MESSAGES: "Send messages from any mailbox",
        Operation.VIEW_OPERATIONS: "Access to 'Operations' workspace",
    }
)
"""What people see for each operation."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a user by name, or the system itself, which tasks act as."""

    name: str
    system: bool = False


SYSTEM = Actor("system", system=True)


class GranteeKind(StrEnum):
    """A grant speaks of one user, or of everyone in a role."""

    USER = "user"
    ROLE = "role"


@dataclass(frozen=True, slots=True)
class Grantee:
    """Whom a grant is for."""

    kind: GranteeKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {quoted(self.name)}"


@dataclass(frozen=True, slots=True)
class GrantLine:
    """One line of Operation permissions; ``position`` counts from 1 without gaps."""

    position: int
    operation: Operation
    grantee: Grantee
    allow: bool

    def __str__(self) -> str:
        word = "allows" if self.allow else "denies"
        return f"line {self.position} {word} it to {self.grantee}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a user holds an operation, and the line that decides; None: no line matches, which
    denies."""

    user: str
    operation: Operation
    line: GrantLine | None

    @property
    def allowed(self) -> bool:
        """First match wins; no match denies."""
        return self.line is not None and self.line.allow

    @property
    def reason(self) -> str:
        """The deciding line in words."""
        return "no line of Operation permissions matches" if self.line is None else str(self.line)


def parse_operation(text: str) -> Operation:
    """An operation by name, in any case. Raises `UserError` listing what there is."""
    for operation in Operation:
        if operation.value.lower() == text.strip().lower():
            return operation
    raise UserError(f"there is no operation {quoted(text)}. There are: {', '.join(Operation)}.")
