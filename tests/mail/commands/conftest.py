"""Mailboxes of ours on real Dovecots of several abilities, and what both sides say."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from imapclient import IMAPClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from lab.apt import program
from lab.servers.dovecot import Dovecot, DovecotOptions, _version
from lab.servers.imap_faults import PASSWORD as IMAP_PASSWORD
from lab.servers.imap_faults import Faults
from lab.world import Ports, add_mailbox, add_provider, sync_now
from tasks.access import SYSTEM
from tasks.runtime import Runtime
from tasks.sync import reading
from tasks.sync.commands.wishes import Queued
from tests.mail.commands.changing_imap import FULL, ChangingImap
from tests.mail.sync.conftest import Followed
from tests.mail.sync.odd_imap import mail, mails

PASSWORD = "open sesame"


@dataclass(frozen=True, slots=True)
class Box:
    """One mailbox, here (``runtime``, ``id``) and there (``server``, ``address``)."""

    runtime: Runtime
    server: Dovecot
    address: str
    id: int

    def deliver(self, *numbers: int, folder: str = "INBOX") -> None:
        """Put small mails there."""
        for number in numbers:
            self.server.deliver(self.address, mail(number), folder)

    def sync(self, passes: int = 1) -> None:
        """Sync now; what waits for another try waits no more."""
        for _ in range(passes):
            self.rows("UPDATE mailwright.commands SET due_at = now() WHERE state = 'queued'")
            sync_now(self.runtime, self.id)

    def client(self) -> IMAPClient:
        """A mail program's view."""
        session = IMAPClient("127.0.0.1", self.server.imap_port, ssl=False)
        session.login(self.address, PASSWORD)
        return session

    def there(self, folder: str = "INBOX") -> dict[int, tuple[str, ...]]:
        """Numbers of the mails in a folder of the server, with their flags."""
        with self.client() as program:
            program.select_folder(folder, readonly=True)
            found = program.fetch(program.search(), ["BODY[HEADER.FIELDS (SUBJECT)]", "FLAGS"])
        return {
            int(one[b"BODY[HEADER.FIELDS (SUBJECT)]"].split(b":")[1]): tuple(
                sorted(flag.decode() for flag in one[b"FLAGS"] if flag != b"\\Recent")
            )
            for one in found.values()
        }

    def here(self, folder: str = "INBOX") -> dict[int, tuple[str, ...]]:
        """The same as stored."""
        return {
            int(row.subject): tuple(row.flags)
            for row in self.rows(
                "SELECT m.subject, p.flags FROM mailwright.places p JOIN mailwright.messages m "
                "ON m.id = p.message_id JOIN mailwright.folder_epochs e ON e.id = p.epoch_id "
                "AND e.state = 'current' JOIN mailwright.folders f ON f.id = e.folder_id WHERE f.name = :f",
                f=folder,
            )
        }

    def shown(self, folder: str = "INBOX") -> dict[int, str]:
        """Numbers and flags as a person reads them."""
        with self.runtime.db.begin() as session:
            rows = reading.list_messages(session, SYSTEM, self.address, folder=folder)
        return {int(row.subject): row.flags or "" for row in rows}

    def message(self, number: int) -> UUID:
        """The id of a mail."""
        row = self.rows("SELECT uid FROM mailwright.messages WHERE subject = :s", s=str(number))[0]
        return UUID(str(row.uid))

    def ask(self, wish: Callable[..., Queued], numbers: Sequence[int], *args: Any, **named: Any) -> Queued:
        """Wish for a change of these mails."""
        uids = [self.message(number) for number in numbers]
        return self.asked(lambda session: wish(session, SYSTEM, uids, *args, **named))

    def asked(self, wish: Callable[[Session], Queued]) -> Queued:
        """Make a wish and commit it."""
        with self.runtime.db.begin() as session:
            return wish(session)

    def states(self) -> list[str]:
        """States of the commands, in order."""
        return [row.state for row in self.rows("SELECT state FROM mailwright.commands ORDER BY id")]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What events of a type tell, in order."""
        return [
            row.data
            for row in self.rows(
                "SELECT data FROM mailwright.events_pending WHERE type = :k ORDER BY id", k=kind
            )
        ]

    def rows(self, statement: str, **parameters: object) -> list[Any]:
        """Ask the database, or tell it."""
        with self.runtime.db.begin() as session:
            result = session.execute(text(statement), parameters)
            return list(result.all()) if result.returns_rows else []  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def dovecots() -> Iterator[Callable[[str], Dovecot]]:
    """Real servers that lack what is named; started when first asked for, with users 0 to 59."""
    with ExitStack() as stack:
        running: dict[str, Dovecot] = {}

        def lacking(words: str) -> Dovecot:
            if words not in running:
                server = stack.enter_context(_Lacking(words))
                running[words] = server
            return running[words]

        yield lacking


class _Lacking(Dovecot):
    """A Dovecot that does not offer some of its extensions; users are made before it starts."""

    def __init__(self, words: str) -> None:
        binary = program("dovecot")
        assert binary is not None, "Dovecot is not installed"
        version = _version(binary)
        super().__init__(options=DovecotOptions(extra=_without(version, words.split())))
        for number in range(60):
            self.add_user(f"user{number}@test.example", PASSWORD)


def _without(version: str, words: Sequence[str]) -> str:
    if not words:
        return ""
    if version.startswith("2.3"):
        kept = "" if "UIDPLUS" in words else "UIDPLUS"
        setting = f"  imap_capability = IMAP4rev1 SASL-IR IDLE LITERAL+ UNSELECT SPECIAL-USE {kept}\n"
    else:
        setting = "  imap_capability {\n" + "".join(f"    {word} = no\n" for word in words) + "  }\n"
    return "protocol imap {\n" + setting + "}\n"


_numbers = count()


@pytest.fixture
def box(runtime: Runtime, dovecots: Callable[[str], Dovecot]) -> Callable[..., Box]:
    """A mailbox of ours with these mails in INBOX, synced; on a Dovecot that lacks ``lacking``."""

    def make(*mails: int, lacking: str = "", trust_condstore: bool = True) -> Box:
        server = dovecots(lacking)
        address = f"user{next(_numbers)}@test.example"
        provider = add_provider(runtime, Ports(imap=server.imap_port), trust_condstore=trust_condstore)
        made = Box(runtime, server, address, add_mailbox(runtime, provider, address, PASSWORD))
        made.deliver(*mails)
        made.sync()
        made.rows("DELETE FROM mailwright.events_pending")  # of the arrivals
        return made

    return make


@dataclass(frozen=True, slots=True)
class Odd(Followed):
    """A mailbox of ours on a server that misbehaves."""

    server: ChangingImap

    def ask(self, wish: Callable[..., Queued], numbers: Sequence[int], *args: Any, **named: Any) -> None:
        """Wish for a change of these mails."""
        uids = [
            self.rows("SELECT uid FROM mailwright.messages WHERE subject = :s", s=str(number))[0].uid
            for number in numbers
        ]
        with self.runtime.db.begin() as session:
            wish(session, SYSTEM, uids, *args, **named)

    def later(self) -> None:
        """The commands' pauses are over."""
        self.rows("UPDATE mailwright.commands SET due_at = now() WHERE state = 'queued'")

    def states(self) -> list[str]:
        """States of the commands, in order."""
        return [row.state for row in self.rows("SELECT state FROM mailwright.commands ORDER BY id")]

    def told(self, kind: str) -> list[dict[str, Any]]:
        """What events of a type tell, in order."""
        statement = "SELECT data FROM mailwright.events_pending WHERE type = :k ORDER BY id"
        return [row.data for row in self.rows(statement, k=kind)]

    def shown(self, folder: str = "INBOX") -> dict[int, str]:
        """Numbers and flags as a person reads them."""
        with self.runtime.db.begin() as session:
            rows = reading.list_messages(session, SYSTEM, "anna@test.example", folder=folder)
        return {int(row.subject): row.flags or "" for row in rows}

    def holds(self, folder: bytes) -> list[bytes]:
        """The mails of a folder on the server."""
        return sorted(self.server.folders[folder].values())


@pytest.fixture
def odd(runtime: Runtime) -> Iterator[Callable[..., Odd]]:
    """A synced mailbox with mails 1 to 4 in INBOX and 9 in Archive, on a server with these
    capabilities."""
    with ExitStack() as stack:

        def start(capabilities: bytes = FULL) -> Odd:
            folders = {b"INBOX": mails(4), b"Archive": [mail(9)]}
            server = ChangingImap(folders, Faults(capabilities=capabilities))
            stack.enter_context(server)
            provider = add_provider(runtime, Ports(imap=server.port))
            made = Odd(runtime, server, add_mailbox(runtime, provider, "anna@test.example", IMAP_PASSWORD))
            made.sync()
            made.rows("DELETE FROM mailwright.events_pending")
            return made

        yield start
