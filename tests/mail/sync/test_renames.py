"""A renamed folder is the same folder: nothing of it is fetched again. A name used again is another one."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from imapclient import IMAPClient

from lab.corpus import small
from lab.servers.dovecot import Dovecot
from lab.servers.wheels import WheelsMail
from lab.world import Ports, add_mailbox, add_provider, sync_now
from tasks.runtime import Runtime
from tests.mail.conftest import Account
from tests.mail.sync.conftest import Follow, Followed
from tests.mail.sync.odd_imap import mail, mails

PLACES = """
    SELECT p.epoch_id, p.imap_uid, p.message_id FROM mailwright.places p
    JOIN mailwright.folder_epochs e ON e.id = p.epoch_id AND e.state = 'current'
    JOIN mailwright.folders f ON f.id = e.folder_id AND f.gone_at IS NULL
    WHERE f.name = :folder ORDER BY 2
"""
QUIET = ("message.moved", "message.copied", "message.deleted", "folder.reset")


class OnDovecot:
    """A mailbox on a real Dovecot, and a mail program that changes it."""

    def __init__(self, runtime: Runtime, dovecot: Dovecot, account: Account) -> None:
        self.program: Any = IMAPClient("127.0.0.1", dovecot.imap_port, ssl=False)
        self.program.login(account.address, account.password)
        provider = add_provider(runtime, Ports(imap=dovecot.imap_port))
        self.id = add_mailbox(runtime, provider, account.address, account.password)
        self.ours = Followed(runtime, None, self.id)  # type: ignore[arg-type]

    def fill(self, folder: str, count: int, seed: int) -> None:
        """Make a folder with messages."""
        self.program.create_folder(folder)
        for raw in small(count, seed=seed):
            self.program.append(folder, raw)

    def sync(self, passes: int = 2) -> None:
        """Sync now."""
        sync_now(self.ours.runtime, self.id, passes)

    def places(self, folder: str) -> list[tuple[int, int, int]]:
        """What lies in a folder: epoch, UID, message."""
        return [tuple(row) for row in self.ours.rows(PLACES, folder=folder)]


@pytest.fixture
def box(runtime: Runtime, dovecot: Dovecot, account: Account) -> Iterator[OnDovecot]:
    """Not synced yet."""
    one = OnDovecot(runtime, dovecot, account)
    yield one
    one.program.shutdown()


def quiet(box: Followed, *but: str) -> bool:
    """Whether nothing was told of messages but what is named."""
    return all(box.events()[kind] == 0 for kind in QUIET if kind not in but)


def test_a_renamed_folder_and_what_lies_under_it_keep_their_places(box: OnDovecot) -> None:
    box.fill("Projekte", 5, seed=1)
    box.fill("Projekte/Überblick", 3, seed=2)
    box.sync()
    before = box.places("Projekte"), box.places("Projekte/Überblick")

    box.program.rename_folder("Projekte", "Fertig & gut")
    box.program.append("Fertig & gut", next(small(1, seed=3)))
    box.sync()

    assert (box.places("Fertig & gut")[:5], box.places("Fertig & gut/Überblick")) == before
    assert len(box.places("Fertig & gut")) == 6
    events = box.ours.events()
    assert (events["folder.renamed"], events["folder.vanished"], events["message.received"]) == (2, 0, 9)
    assert quiet(box.ours)
    (told,) = box.ours.rows(
        "SELECT data FROM mailwright.events_pending WHERE type = 'folder.renamed' ORDER BY id LIMIT 1"
    )
    assert {told.data["was"], told.data["folder"]} <= {
        "Projekte",
        "Projekte/Überblick",
        "Fertig & gut",
        "Fertig & gut/Überblick",
    }


def test_flags_and_expunges_made_around_the_renaming_are_found(box: OnDovecot) -> None:
    box.fill("A", 6, seed=4)
    box.sync()
    box.program.select_folder("A")
    box.program.add_flags([2], [b"\\Flagged"])
    box.program.unselect_folder()
    box.program.rename_folder("A", "B")
    box.program.select_folder("B")
    box.program.add_flags([3], [b"\\Deleted"])
    box.program.expunge()
    box.program.add_flags([4], [b"\\Seen"])

    box.sync()

    assert [uid for _, uid, _ in box.places("B")] == [1, 2, 4, 5, 6]
    events = box.ours.events()
    assert (events["folder.renamed"], events["message.deleted"], events["message.flags_changed"]) == (1, 1, 2)


def test_a_name_that_is_used_again_is_another_folder(box: OnDovecot) -> None:
    box.fill("A", 4, seed=5)
    box.sync()
    before = box.places("A")
    box.program.rename_folder("A", "B")
    box.fill("A", 2, seed=6)

    box.sync()

    assert box.places("B") == before
    assert len(box.places("A")) == 2
    events = box.ours.events()
    assert (events["folder.renamed"], events["folder.vanished"]) == (1, 0)
    assert quiet(box.ours)


def test_a_folder_deleted_and_one_made_anew_are_two(box: OnDovecot) -> None:
    box.fill("A", 4, seed=7)
    box.sync()
    box.program.delete_folder("A")
    box.fill("B", 4, seed=8)

    box.sync()

    events = box.ours.events()
    assert (events["folder.renamed"], events["folder.vanished"], events["message.deleted"]) == (0, 1, 4)
    assert len(box.places("B")) == 4


def test_one_name_is_passed_on_to_the_next(box: OnDovecot) -> None:
    box.fill("A", 3, seed=9)
    box.fill("B", 3, seed=10)
    box.sync()
    before = box.places("A"), box.places("B")
    box.program.rename_folder("B", "C")
    box.program.rename_folder("A", "B")

    box.sync()

    assert (box.places("B"), box.places("C")) == before
    assert box.ours.events()["folder.renamed"] == 2
    assert quiet(box.ours)


@pytest.fixture
def odd(follow: Follow) -> Followed:
    """Every folder has the same UIDVALIDITY, as with some servers for good."""
    mailbox = follow({b"INBOX": mails(2), b"A": mails(4, first=10), b"B": mails(4, first=20), b"Empty": []})
    mailbox.sync(2)
    mailbox.server.lines.clear()
    return mailbox


def bodies(mailbox: Followed) -> int:
    """How many FETCHes of whole messages there were."""
    return sum(b"BODY.PEEK[]" in line for line in mailbox.server.lines)


def test_of_many_with_one_uidvalidity_the_mail_tells_which_it_is(odd: Followed) -> None:
    odd.server.rename(b"B", b"D")
    odd.server.rename(b"A", b"C")

    odd.sync(2)

    assert odd.same_as_server()
    assert bodies(odd) == 0
    assert odd.events()["folder.renamed"] == 2
    assert quiet(odd)


@pytest.mark.parametrize("held", [mails(4, first=30), [*mails(3, first=10), mail(99)], []])
def test_the_same_numbers_over_other_mail_prove_nothing(odd: Followed, held: list[bytes]) -> None:
    del odd.server.folders[b"A"]
    odd.server.folders[b"C"] = dict(enumerate(held, start=1))

    odd.sync(3)

    assert odd.same_as_server()
    events = odd.events()
    assert (events["folder.renamed"], events["folder.vanished"]) == (0, 1)
    assert events["message.received"] == 0


def test_an_inbox_given_another_name_is_kept_and_there_is_a_new_one(follow: Follow) -> None:
    """RFC 9051 §6.3.6: the mail goes, an empty INBOX stays."""
    mailbox = follow(mails(3))
    mailbox.sync()
    mailbox.server.rename(b"INBOX", b"Bis 2025")
    mailbox.server.folders[b"INBOX"] = {1: mail(50)}
    mailbox.server.uidvalidities[b"INBOX"] = 8
    mailbox.server.lines.clear()

    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert bodies(mailbox) == 1
    assert mailbox.events()["folder.renamed"] == 1
    assert quiet(mailbox)


def test_an_empty_folder_may_be_any_and_is_taken_for_none_of_two(odd: Followed) -> None:
    odd.server.rename(b"Empty", b"Bare")
    odd.sync()
    assert odd.events()["folder.renamed"] == 1

    odd.server.folders[b"Second"] = {}
    odd.sync()
    del odd.server.folders[b"Second"], odd.server.folders[b"Bare"]
    odd.server.folders[b"Third"] = {}
    odd.sync()

    assert odd.events()["folder.renamed"] == 1
    assert odd.same_as_server()


def test_without_headers_a_name_is_another_folder_and_the_mail_the_same(odd: Followed) -> None:
    odd.server.rename(b"A", b"C")
    odd.server.refused = {(b"C", 2)}

    odd.sync(2)
    odd.server.refused = set()
    odd.sync(4)

    assert odd.events()["folder.renamed"] == 0
    assert odd.events()["folder.vanished"] == 1
    assert odd.messages() == 10
    assert odd.events()["message.received"] == 0


@pytest.fixture
def identified(follow: Follow) -> Followed:
    """A server that tells MAILBOXIDs."""
    mailbox = follow({b"INBOX": mails(1), b"A": mails(3, first=10)})
    mailbox.server.object_ids = {b"INBOX": b"F-1", b"A": b"F-2"}
    mailbox.sync(2)
    return mailbox


def test_a_mailboxid_tells_a_renamed_folder_that_was_renumbered_too(identified: Followed) -> None:
    identified.server.rename(b"A", b"C")
    identified.server.reset(b"C", first=50)

    identified.sync(3)

    assert identified.same_as_server()
    assert identified.events()["folder.renamed"] == identified.events()["folder.reset"] == 1
    assert quiet(identified, "folder.reset")


def test_another_mailboxid_is_another_folder_though_all_else_is_the_same(identified: Followed) -> None:
    identified.server.rename(b"A", b"C")
    identified.server.object_ids[b"C"] = b"F-3"

    identified.sync(3)

    assert identified.same_as_server()
    assert identified.events()["folder.renamed"] == 0
    assert identified.messages() == 4


def test_a_mailboxid_that_is_everybody_s_moves_no_mail(identified: Followed) -> None:
    server = identified.server
    server.object_ids = dict.fromkeys(server.object_ids, b"F-1")
    identified.sync()
    del server.folders[b"A"]
    server.folders[b"C"] = dict(enumerate(mails(3, first=40), start=1))
    server.object_ids[b"C"] = b"F-1"

    identified.sync(3)

    assert identified.same_as_server()
    assert identified.events()["folder.renamed"] == 0
    assert identified.events()["message.received"] == 0


@pytest.fixture
def pymap() -> Iterator[WheelsMail]:
    """A server that offers OBJECTID in earnest."""
    server = WheelsMail(None, {"anna@test.example": "secret"}, ["test.example"])
    yield server
    server.stop()


def test_a_server_s_own_mailboxid_is_kept_and_the_folder_recognised(
    runtime: Runtime, pymap: WheelsMail, rows: Callable[..., list[Any]]
) -> None:
    provider = add_provider(
        runtime, Ports(imap=pymap.imap_port, imap_security="tls", ca=pymap.ca_file, host=pymap.imap_host)
    )
    mailbox = add_mailbox(runtime, provider, "anna@test.example", "secret")
    for raw in small(3, seed=13):
        pymap.deliver("anna@test.example", raw, "Projekte")
    sync_now(runtime, mailbox, 2)
    before = rows(PLACES, folder="Projekte")
    assert len(before) == 3
    assert rows("SELECT 1 FROM mailwright.folders WHERE name = 'Projekte' AND object_id IS NOT NULL")

    pymap._client("anna@test.example").rename_folder("Projekte", "Fertig")
    sync_now(runtime, mailbox, 2)

    assert rows(PLACES, folder="Fertig") == before


@pytest.fixture
def rows(runtime: Runtime) -> Callable[..., list[Any]]:
    """Ask the database."""
    return Followed(runtime, None, 0).rows  # type: ignore[arg-type]
