"""Everything at once, by lot, on a real Dovecot: mail programs and people change mailboxes while workers sync
them and are killed; at rest the server's files, Postgres and the events are one account.

    mail programs ──append, flags, move, expunge, folders, UIDVALIDITY──> Dovecot <──commands── workers
                                                                                                  │ kill -9
    files of the server == Postgres == events replayed  ·  nothing announced twice <──────────────┘
"""

import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from uuid import UUID

from imapclient import IMAPClient

from config.errors import UserError
from lab.corpus import generate
from lab.crash import books, rest
from lab.crash.rounds import Hit
from lab.crash.stack import CrashStack
from lab.replay import Inconsistent, replay
from lab.servers.maildir import digest
from lab.servers.uidlist import Files
from lab.world import Ports, add_mailbox, add_provider
from tasks import schedule
from tasks.access import SYSTEM
from tasks.sync.commands import wishes

BOXES: Final = 4
"""Mailboxes; the last one's MODSEQs are not trusted."""
STEPS: Final = 22
"""Changes of one mailbox in a round."""
CROWDED: Final = 110
"""Messages of a mailbox above which more are expunged than come; a plain look at flags sees 200 a folder."""
KEPT: Final = ("INBOX", "Archive", "Trash", "Junk")
"""Folders that stay; into these our own commands put messages."""
NAMES: Final = ("Projekte", "Überblick & Co", "日本語", "a*b%c", 'quo"te', "back\\slash", "tilde~", "spa  ce")
FLAGS: Final = (b"\\Seen", b"\\Flagged", b"\\Answered", b"\\Draft", b"$Label1", b"$Forwarded")
LEASED: Final = """
    SELECT DISTINCT lease_owner FROM mailwright.schedule
    WHERE mailbox_id = ANY(:boxes) AND lease_until > now() ORDER BY 1
"""
RECORDED: Final = """
    SELECT (SELECT count(*) FROM mailwright.events WHERE mailbox_id = ANY(:boxes))
         + (SELECT count(*) FROM mailwright.events_pending WHERE mailbox_id = ANY(:boxes))
"""
CUT_SHORT: Final = """
    -- The minute that a try which was broken off waits; and the rest of folders that failed.
    WITH due AS (
        UPDATE mailwright.commands SET due_at = now()
        WHERE mailbox_id = ANY(:boxes) AND state = 'queued' AND due_at > now() RETURNING 1
    ) SELECT count(*) FROM due
"""
UNSETTLED: Final = """
    SELECT (SELECT count(*) FROM mailwright.commands
            WHERE mailbox_id = ANY(:boxes) AND state = 'queued') AS queued,
           (SELECT count(*) FROM mailwright.messages
            WHERE mailbox_id = ANY(:boxes) AND state = 'missing') AS missing
"""
ENDS: Final = """
    SELECT kind, state, count(*) AS n FROM mailwright.commands
    WHERE mailbox_id = ANY(:boxes) GROUP BY 1, 2 ORDER BY 1, 2
"""
TOLD: Final = """
    SELECT encode(m.digest, 'hex') AS digest, e.type, count(*) AS n FROM (
        SELECT type, mailbox_id, subject FROM mailwright.events
        UNION ALL SELECT type, mailbox_id, subject FROM mailwright.events_pending
    ) AS e JOIN mailwright.messages m ON m.uid::text = e.subject
    WHERE e.mailbox_id = :mailbox
      AND e.type IN ('message.received', 'message.filed', 'message.deleted') GROUP BY 1, 2
"""


LIFE: Final = """
    SELECT e.at, e.type, m.id, e.data FROM (
        SELECT at, type, mailbox_id, subject, data FROM mailwright.events
        UNION ALL SELECT at, type, mailbox_id, subject, data FROM mailwright.events_pending
    ) AS e LEFT JOIN mailwright.messages m ON m.uid::text = e.subject
    WHERE e.mailbox_id = :mailbox
      AND (encode(m.digest, 'hex') = :about OR e.subject = :about OR e.type LIKE 'folder.%') ORDER BY 1
"""

TELLING: Final = ("folder", "left", "imap_uid", "flags", "origin", "matched")
"""What of an event's facts is shown where accounts differ."""
ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class NotOneAccount(AssertionError):
    """Server, Postgres and events differ at rest."""


@dataclass
class Ledger:
    """What was done to a mailbox, by the digest of the bytes: how often a mail can have come at most, and
    how often its last place can have gone."""

    came: Counter[str] = field(default_factory=Counter)
    went: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    wished: Counter[str] = field(default_factory=Counter)

    def appended(self, mail: str) -> None:
        """A delivery."""
        self.came[mail] += 1
        self.places[mail] += 1

    def spread(self, mail: str, *, copy: bool) -> None:
        """A copy or move. Of one that has several places it may land beside itself, where it counts as one
        that came, since a message has one place in a folder."""
        if self.places[mail] > 1 or (copy and self.wished[mail]):
            self.came[mail] += 1
            self.went[mail] += 1
        self.places[mail] += copy

    def wish(self, mail: str, *, copy: bool) -> None:
        """A copy or move that will be carried out some time from now."""
        self.spread(mail, copy=copy)
        self.wished[mail] += 1


class Program:
    """A mail program that does as the lot falls, in one mailbox."""

    def __init__(self, stack: CrashStack, address: str, random: Random) -> None:
        self.stack, self.address, self.random = stack, address, random
        self.ledger = Ledger()
        self.done: Counter[str] = Counter()
        self._source = generate(10_000_000, seed=random.randrange(2**30), mean_size=4_000)
        self._letters: list[bytes] = []
        self._folders: list[str] = []
        self._names = 0
        self._renumbered: set[str] = set()
        self._client: Any = self._log_in()  # IMAPClient, whose methods are untyped

    def play(self, steps: int) -> None:
        """Make so many changes."""
        self._renumbered.clear()
        for _ in range(steps):
            crowded = books.filed(self.stack, self.address) > CROWDED
            names, weights = zip(*self._weights(crowded).items(), strict=True)
            (name,) = self.random.choices(names, weights)
            try:
                getattr(self, f"_{name}")()
            except IMAPClient.AbortError:  # Dovecot's farewell to who had a folder whose UIDs were forgotten
                name = "begin again"
                self._begin_again()
            except IMAPClient.Error:  # such as of a message that a worker has just moved away
                name = "refused"
            self.done[name] += 1
            time.sleep(self.random.uniform(0, 0.12))

    def listed(self) -> set[str]:
        """The folders that the server shows; among them, with Dovecot, deleted ones that have children."""
        return {name for _, _, name in self._client.list_folders()}

    def close(self) -> None:
        """End the session."""
        with suppress(OSError, IMAPClient.Error):
            self._client.shutdown()

    def _begin_again(self) -> None:
        """As a mail program does whose session ended: whether the last change was made is not known."""
        self.close()
        self._client = self._log_in()
        there = self.stack.dovecot.maildir(self.address).folders()
        self._folders = [name for name in there if name.partition("/")[0] not in (*KEPT, "Sent", "Drafts")]

    def _weights(self, crowded: bool) -> dict[str, int]:
        made = bool(self._folders)
        return {
            "append": 2 if crowded else 10,
            "deliver": 1 if crowded else 4,
            "again": 1 if crowded else 2,
            "mark": 10,
            "move": 7,
            "copy": 1 if crowded else 3,
            "expunge": 8 if crowded else 3,
            "create": 2 if len(self._folders) < 8 else 0,
            "rename": 2 * made,
            "delete": 2 * made,
            "revalidate": 1,
            "renumber": 1,
        }

    def _log_in(self) -> Any:
        client = IMAPClient("127.0.0.1", self.stack.dovecot.imap_port, ssl=False, timeout=60)
        client.login(self.address, self.stack.passwords[self.address])
        return client

    def _some_folder(self) -> str:
        return self.random.choice([*KEPT, *KEPT[:1] * 3, *self._folders])

    def _some_flags(self) -> list[bytes]:
        return self.random.sample(FLAGS, self.random.randint(0, 3))

    def _pick(self, most: int) -> tuple[str, list[int], list[str]]:
        """Open a folder and choose messages in it, with the digests of their bytes."""
        folder = self._some_folder()
        self._client.select_folder(folder)
        there = self._client.search()
        chosen = self.random.sample(there, min(len(there), self.random.randint(1, most)))
        return folder, chosen, self._digests(chosen)

    def _digests(self, uids: Sequence[int]) -> list[str]:
        if not uids:
            return []
        bodies = self._client.fetch(uids, ["BODY.PEEK[]"])
        found = [bodies[uid].get(b"BODY[]") for uid in uids if uid in bodies]
        return [digest(raw) for raw in found if raw is not None]  # NIL: a worker has removed it

    def _letter(self) -> bytes:
        raw = next(self._source)
        self._letters = [*self._letters[-40:], raw]
        return raw

    def _append(self) -> None:
        folder = self._some_folder()
        for _ in range(self.random.randint(1, 5)):
            raw = self._letter()
            self.ledger.appended(digest(raw))
            self._client.append(folder, raw, self._some_flags())

    def _deliver(self) -> None:
        for _ in range(self.random.randint(1, 6)):
            raw = self._letter()
            self.ledger.appended(digest(raw))
            self.stack.dovecot.deliver(self.address, raw)

    def _again(self) -> None:
        """A true duplicate: the same bytes once more."""
        if self._letters:
            raw = self.random.choice(self._letters)
            self.ledger.appended(digest(raw))
            self._client.append(self._some_folder(), raw, self._some_flags())

    def _mark(self) -> None:
        self._client.select_folder(self._some_folder())
        there = self._client.search()
        chosen = self.random.sample(there, min(len(there), self.random.randint(1, 12)))
        if chosen:
            change = self.random.choice(
                (self._client.add_flags, self._client.remove_flags, self._client.set_flags)
            )
            change(chosen, self._some_flags() or [b"\\Seen"])

    def _move(self) -> None:
        folder, chosen, mails = self._pick(6)
        target = self._some_folder()
        if chosen and target != folder:
            for mail in mails:
                self.ledger.spread(mail, copy=False)
            self._client.move(chosen, target)

    def _copy(self) -> None:
        folder, chosen, mails = self._pick(3)
        target = self._some_folder()
        if chosen and target != folder:
            for mail in mails:
                self.ledger.spread(mail, copy=True)
            self._client.copy(chosen, target)

    def _expunge(self) -> None:
        _, chosen, mails = self._pick(10)
        if chosen:
            self.ledger.went.update(mails)
            self._client.add_flags(chosen, [b"\\Deleted"])
            self._client.expunge(chosen)

    def _create(self) -> None:
        self._names += 1
        name = f"{self.random.choice(NAMES)} {self._names}"
        if self._folders and self.random.random() < 0.5:
            name = f"{self.random.choice(self._folders)}/{name}"
        self._client.create_folder(name)
        self._folders.append(name)

    def _rename(self) -> None:
        """With what lies under it."""
        old = self.random.choice(self._folders)
        self._names += 1
        new = f"{self.random.choice(NAMES)} {self._names}"
        self._client.rename_folder(old, new)
        self._folders = [
            new + name[len(old) :] if name == old or name.startswith(old + "/") else name
            for name in self._folders
        ]

    def _delete(self) -> None:
        """What lies under it stays. A leaf is sometimes made anew under the same name."""
        name = self.random.choice(self._folders)
        self._client.select_folder(name, readonly=True)
        self.ledger.went.update(self._digests(self._client.search()))
        self._client.unselect_folder()
        self._client.delete_folder(name)
        leaf = not any(other.startswith(name + "/") for other in self._folders)
        if leaf and self.random.random() < 0.4:
            self._client.create_folder(name)
        else:
            self._folders.remove(name)

    def _revalidate(self) -> None:
        """A new UIDVALIDITY over the same UIDs. At most once a round: five in a row stop a folder."""
        if (folder := self._not_yet_renumbered()) is not None:
            self.stack.dovecot.set_uidvalidity(
                self.address, folder, self.random.randint(2_000_000_000, 2**32 - 1)
            )

    def _renumber(self) -> None:
        """A new UIDVALIDITY and new UIDs; ends every session."""
        if (folder := self._not_yet_renumbered()) is not None:
            self.stack.dovecot.reset_uidvalidity(self.address, folder)
            self._client = self._log_in()

    def _not_yet_renumbered(self) -> str | None:
        folder = self.random.choice([*KEPT[:2], *self._folders])
        if folder in self._renumbered:
            return None
        self._renumbered.add(folder)
        self._client.select_folder(folder, readonly=True)  # there, in files
        self._client.unselect_folder()
        return folder


class Exerciser:
    """The mailboxes and their rounds."""

    def __init__(self, stack: CrashStack, random: Random) -> None:
        self.stack, self.random = stack, random
        ports = Ports(imap=stack.dovecot.imap_port)
        trusted = add_provider(stack.runtime, ports, "Exercised")
        plain = add_provider(stack.runtime, ports, "Exercised plainly", trust_condstore=False)
        addresses = [f"exercised-{number}@crash.example" for number in range(1, BOXES + 1)]
        for address in addresses:
            stack.passwords[address] = secrets.token_hex(8)
            stack.dovecot.add_user(address, stack.passwords[address])
        stack.wait(lambda: all(self._lets_in(address) for address in addresses), "new accounts")
        self.programs = [Program(stack, address, Random(random.random())) for address in addresses]
        for address in addresses:
            provider = plain if address == addresses[-1] else trusted
            password = stack.passwords[address]
            stack.mailboxes[address] = add_mailbox(stack.runtime, provider, address, password)
        self.boxes = [stack.mailboxes[address] for address in addresses]
        self.files = {address: Files(stack.dovecot.maildir(address)) for address in addresses}
        self.refused: Counter[str] = Counter()
        self.settle()

    def close(self) -> None:
        """End the mail programs' sessions."""
        for program in self.programs:
            program.close()

    def round(self) -> Hit | None:
        """Change everything, give commands, kill a worker in the midst, and hold the accounts against each
        other. None where no worker was at work when it should have been killed."""
        before = self.recorded()
        with ThreadPoolExecutor(BOXES) as hands:
            playing = [hands.submit(program.play, STEPS) for program in self.programs]

            def over() -> bool:
                return all(each.done() for each in playing)

            self._wish()
            struck = self._strike(before, self.random.randint(1, 60 * BOXES), over)
            self._wish()
            for each in playing:
                each.result()
        self.settle()
        if struck is None:
            return None
        return Hit(struck.worker, struck.done, self.recorded() - before)

    def recorded(self) -> int:
        """How many events there are of these mailboxes."""
        return int(self.stack.one(RECORDED, boxes=self.boxes))

    def ends(self) -> dict[str, int]:
        """How our commands ended."""
        return {f"{row.kind} {row.state}": row.n for row in self.stack.rows(ENDS, boxes=self.boxes)}

    def types(self) -> set[str]:
        """The types of all events so far."""
        return {event.type for box in self.boxes for event in rest.events(self.stack.rows, box)}

    def settle(self) -> None:
        """Wait until nothing is under way, and look once more at all. Raises `NotOneAccount`."""
        deadline = time.monotonic() + 180
        for _ in range(2):
            self._sync(deadline)
        while any(self._unsettled()):
            self.stack.rows(CUT_SHORT, boxes=self.boxes)
            self._sync(deadline)
        faults = [fault for program in self.programs for fault in self._faults(program)]
        if faults:
            raise NotOneAccount("\n".join(faults))

    def _lets_in(self, address: str) -> bool:
        client = IMAPClient("127.0.0.1", self.stack.dovecot.imap_port, ssl=False)
        try:
            client.login(address, self.stack.passwords[address])
        except IMAPClient.Error:  # a new line in its list of users is read within a second
            return False
        finally:
            client.shutdown()
        return True

    def _unsettled(self) -> tuple[int, int]:
        (row,) = self.stack.rows(UNSETTLED, boxes=self.boxes)
        return row.queued, row.missing

    def _sync(self, deadline: float) -> None:
        """A sync of each mailbox that begins from now on and ends well."""
        with self.stack.runtime.db.begin() as session:
            since, _ = schedule.ask(session, self.boxes)
        waiting = set(self.boxes)
        while waiting:
            for program in (*self.stack.workers, *self.stack.others):
                assert program.running, f"{program.name} has ended by itself\n{self.stack.logs()}"
            with self.stack.runtime.db.begin() as session:
                ended = schedule.settled(session, list(waiting), since)
                failed = [box for box, error in ended.items() if error is not None]
                if failed:  # such as after a session that was ended: asked again, for later
                    since, _ = schedule.ask(session, failed)
            waiting -= {box for box, error in ended.items() if error is None}
            if time.monotonic() > deadline:
                raise NotOneAccount(f"{len(waiting)} mailboxes do not come to rest\n{self.stack.logs()}")
            time.sleep(0.05)

    def _strike(self, before: int, threshold: int, over: Callable[[], bool]) -> Hit | None:
        """Kill a worker that holds one of the mailboxes, once so many events were recorded."""
        while self.recorded() - before < threshold and not over():
            time.sleep(0.02)
        time.sleep(self.random.uniform(0, 0.1))
        until = time.monotonic() + 3
        while (victim := self._at_work()) is None:
            if time.monotonic() > until:
                return None
            time.sleep(0.002)
        victim.freeze()
        hit = Hit(victim.name, self.recorded() - before, 0)
        victim.kill()
        self.stack.replace(victim)
        return hit

    def _at_work(self) -> Any:
        owners = [self.stack.owner(row.lease_owner) for row in self.stack.rows(LEASED, boxes=self.boxes)]
        workers = [owner for owner in owners if owner is not None]
        return self.random.choice(workers) if workers else None

    def _wish(self) -> None:
        """Commands of ours about messages as Postgres has them now. Some come too late and are refused."""
        for box in self.boxes:
            rows = self.stack.rows(
                "SELECT uid, encode(digest, 'hex') AS digest FROM mailwright.messages "
                "WHERE mailbox_id = :box AND state = 'present' ORDER BY id",
                box=box,
            )
            program = self.programs[self.boxes.index(box)]
            for kind in self.random.sample(("mark", "move", "copy", "delete", "expunge"), 3):
                chosen = self.random.sample(rows, min(len(rows), self.random.randint(1, 3)))
                for row in chosen:
                    self._give(program.ledger, kind, row.uid, row.digest)

    def _give(self, ledger: Ledger, kind: str, uid: UUID, mail: str) -> None:
        session_of, folder = self.stack.runtime.db.begin, self.random.choice(KEPT)
        if kind in {"move", "copy", "delete"}:
            ledger.wish(mail, copy=kind == "copy")
        elif kind == "expunge":
            ledger.went[mail] += max(1, ledger.places[mail])
        try:
            with session_of() as session:
                match kind:
                    case "mark":
                        add = self.random.sample(wishes.MARKS, 1)
                        wishes.mark(session, SYSTEM, [uid], add=add, remove=[])
                    case "move":
                        wishes.move(session, SYSTEM, [uid], folder)
                    case "copy":
                        wishes.copy(session, SYSTEM, [uid], folder)
                    case "delete":
                        wishes.delete(session, SYSTEM, [uid])
                    case _:
                        wishes.delete(session, SYSTEM, [uid], permanently=True)
        except UserError as error:
            self.refused[type(error).__name__] += 1

    def _faults(self, program: Program) -> Iterator[str]:
        """How the three accounts of a mailbox differ, a line each."""
        address = program.address
        box = self.stack.mailboxes[address]
        stored = rest.load(self.stack.rows, box)
        told = rest.events(self.stack.rows, box)
        listed = program.listed()
        filed = {  # Dovecot lists what is not there, and leaves directories of what it does not list
            name: folder for name, folder in self.files[address].folders().items() if name in listed
        }
        for line in rest.against_server(stored, filed):
            yield f"{address}: {line}"
        try:
            for line in rest.against_events(stored, replay(told)):
                yield f"{address}: {line}"
                if about := ID.search(line):
                    yield from self._life(box, about[0])
        except Inconsistent as error:
            yield f"{address}: {error}"
        for row in self.stack.rows(TOLD, mailbox=box):
            most = program.ledger.went if row.type == "message.deleted" else program.ledger.came
            if row.n > most[row.digest]:
                happened = f"at most {most[row.digest]} happened"
                yield f"{address}: {row.digest[:8]} has {row.n} {row.type}, {happened}"
                yield from self._life(box, row.digest)

    def _life(self, box: int, about: str) -> Iterator[str]:
        """What the events tell of messages, by the digest of their bytes or by id."""
        for event in self.stack.rows(LIFE, mailbox=box, about=about):
            told = {key: event.data[key] for key in TELLING if key in event.data}
            yield f"    {event.at:%H:%M:%S.%f} {event.type} {event.id or ''} {told}"
