"""QRESYNC and CONDSTORE: what changed costs what changed, and no lie about it hides a change."""

from collections.abc import Iterator

import pytest

from lab.servers.imap_faults import Faults
from lab.world import Ports, add_mailbox, add_provider
from tasks.runtime import Runtime
from tests.mail.sync.conftest import Followed
from tests.mail.sync.odd_imap import mail, mails
from tests.mail.sync.tracking_imap import CONDSTORE, PLAIN, QRESYNC, TrackingImap

COUNT = 12


@pytest.fixture
def server() -> Iterator[TrackingImap]:
    """A server with QRESYNC."""
    with TrackingImap(
        {b"INBOX": mails(COUNT), b"Sent": mails(2, first=50)}, Faults(capabilities=QRESYNC)
    ) as one:
        yield one


@pytest.fixture
def mailbox(runtime: Runtime, server: TrackingImap) -> Followed:
    """A mailbox on it, synced."""
    followed = on(runtime, server)
    followed.sync(2)
    server.lines.clear()
    server.commands.clear()
    return followed


def on(runtime: Runtime, server: TrackingImap, **provider: object) -> Followed:
    """A mailbox on the server."""
    provider_id = add_provider(runtime, Ports(imap=server.port), **provider)
    return Followed(runtime, server, add_mailbox(runtime, provider_id, "anna@test.example", server.password))


def change(server: TrackingImap) -> None:
    """One of each: an arrival, a flag, an expunge."""
    server.add(mail(70))
    server.flag(2, b"\\Flagged")
    server.expunge(4)


def is_in_step(mailbox: Followed) -> None:
    """What `change` did is stored and told, once."""
    mailbox.sync()  # a second full look, after which what is missing is deleted
    assert mailbox.same_as_server()
    flags = mailbox.rows("SELECT flags FROM mailwright.places WHERE imap_uid = 2 ORDER BY epoch_id LIMIT 1")
    assert flags[0].flags == ["\\Flagged"]
    events = mailbox.events()
    assert events["message.flags_changed"] == events["message.received"] == events["message.deleted"] == 1
    assert events["message.moved"] == events["message.copied"] == 0
    assert mailbox.schedule().failures == mailbox.folder("INBOX").failures == 0


def fetches(server: TrackingImap) -> list[bytes]:
    """The FETCH commands that ask for no bodies."""
    return [line for line in server.lines if b" UID FETCH " in line and b"BODY" not in line]


def test_opening_the_folder_tells_flags_and_expunges_in_one_go(
    mailbox: Followed, server: TrackingImap
) -> None:
    server.flag(2, b"\\Flagged")
    server.expunge(4)

    mailbox.sync()

    opened = [line for line in server.lines if b"EXAMINE" in line and b"INBOX" in line]
    assert [b"(QRESYNC (7 10 1:12))" in line for line in opened] == [True]
    assert fetches(server) == []
    server.add(mail(70))
    is_in_step(mailbox)


@pytest.mark.parametrize("capabilities", [PLAIN, CONDSTORE, QRESYNC])
def test_what_is_told_last_of_a_message_holds(
    runtime: Runtime, server: TrackingImap, capabilities: bytes
) -> None:
    server.faults = Faults(capabilities=capabilities)
    mailbox = on(runtime, server)
    server.flag(2, b"\\Flagged \\Seen")
    mailbox.sync(2)
    server.outdated = {2}
    for uid in (2, 3):
        server.flag(uid, b"\\Seen \\Flagged")

    mailbox.sync()

    assert mailbox.events()["message.flags_changed"] == 1
    assert mailbox.same_as_server()


def test_many_changes_stream(
    mailbox: Followed, server: TrackingImap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.wire.imap.folders.MOST_CHANGES", 2)
    for uid in (6, 7, 8):
        server.flag(uid, b"\\Seen")
    server.expunge(9)

    mailbox.sync(2)

    assert any(b"CHANGEDSINCE 10 VANISHED" in line for line in fetches(server))
    assert mailbox.same_as_server()
    assert mailbox.events()["message.flags_changed"] == 3
    assert mailbox.events()["message.deleted"] == 1


@pytest.mark.parametrize("reply", [b"BAD what", b"NO not that", b"BAD [CLIENTBUG] unknown parameter"])
def test_qresync_offered_and_refused_is_condstore(
    mailbox: Followed, server: TrackingImap, reply: bytes
) -> None:
    server.refuse_qresync = reply
    change(server)

    mailbox.sync()

    assert any(b"CHANGEDSINCE" in line for line in fetches(server)) or fetches(server)
    is_in_step(mailbox)


@pytest.mark.parametrize("reply", [b"BAD what", b"NO not that"])
def test_enable_offered_and_refused_is_condstore(
    runtime: Runtime, server: TrackingImap, reply: bytes
) -> None:
    server.refuse_enable = reply
    mailbox = on(runtime, server)
    mailbox.sync(2)
    change(server)

    mailbox.sync()

    assert not any(b"QRESYNC (" in line for line in server.lines)
    is_in_step(mailbox)


def test_everything_refused_is_done_without(mailbox: Followed, server: TrackingImap) -> None:
    server.refuse_qresync = b"BAD what"
    server.refuse_modseq = True
    change(server)

    mailbox.sync()

    is_in_step(mailbox)


def test_an_expunge_that_is_not_told_is_found_by_the_count(mailbox: Followed, server: TrackingImap) -> None:
    server.untold = {4}
    change(server)

    mailbox.sync()

    is_in_step(mailbox)


def test_a_message_told_to_be_gone_that_is_there_comes_back(mailbox: Followed, server: TrackingImap) -> None:
    server.undead = {6}
    server.flag(3, b"\\Seen")

    mailbox.sync()
    server.undead = set()
    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert mailbox.messages() == COUNT + 2
    assert mailbox.events()["message.deleted"] == mailbox.events()["message.received"] == 0


def test_the_same_expunge_told_twice_is_one(mailbox: Followed, server: TrackingImap) -> None:
    change(server)
    mailbox.sync()
    server.undead = {4, 4000}  # it tells it again, and one that never was
    server.flag(3, b"\\Seen")

    mailbox.sync()

    assert mailbox.same_as_server()
    assert mailbox.events()["message.deleted"] == 1
    assert mailbox.events()["message.flags_changed"] == 2


def test_modseqs_that_go_backwards_hide_nothing_and_are_doubted(
    mailbox: Followed, server: TrackingImap
) -> None:
    change(server)
    server.frozen = 3

    mailbox.sync()

    is_in_step(mailbox)
    server.lines.clear()
    server.flag(5, b"\\Seen")
    mailbox.sync()
    assert mailbox.events()["message.flags_changed"] == 2
    assert not any(b"CHANGEDSINCE" in line or b"(QRESYNC" in line for line in server.lines)


def test_a_highestmodseq_that_stands_still_is_doubted_at_the_next_arrival(
    mailbox: Followed, server: TrackingImap
) -> None:
    """As WorkMail's; from then on flags are compared."""
    server.frozen = 10
    change(server)

    mailbox.sync()

    is_in_step(mailbox)
    server.flag(5, b"\\Seen")
    mailbox.sync()
    assert mailbox.events()["message.flags_changed"] == 2


@pytest.mark.parametrize("capabilities", [CONDSTORE, QRESYNC])
def test_a_server_that_leaves_modseq_out_is_doubted(
    runtime: Runtime, server: TrackingImap, capabilities: bytes
) -> None:
    """As SmarterMail."""
    server.faults = Faults(capabilities=capabilities)
    server.without_modseq = True
    mailbox = on(runtime, server)
    mailbox.sync(2)
    change(server)

    mailbox.sync()

    is_in_step(mailbox)
    assert mailbox.rows("SELECT doubted_at FROM mailwright.folder_epochs WHERE doubted_at IS NOT NULL")


def test_gmails_changes_that_show_late_are_found(runtime: Runtime, server: TrackingImap) -> None:
    """HIGHESTMODSEQ runs ahead of what CHANGEDSINCE shows; the pass after next asks from before."""
    server.faults = Faults(capabilities=CONDSTORE + b" X-GM-EXT-1")
    mailbox = on(runtime, server)
    mailbox.sync(3)
    server.late = {2}
    server.flag(2, b"\\Flagged")
    mailbox.sync()
    assert mailbox.events()["message.flags_changed"] == 0
    server.late = set()

    mailbox.sync()

    assert mailbox.events()["message.flags_changed"] == 1
    mailbox.sync()
    server.commands.clear()
    mailbox.sync()
    assert server.commands["EXAMINE"] == server.commands["FETCH"] == 0


def test_modseqs_are_left_alone_where_they_are_not_trusted(runtime: Runtime, server: TrackingImap) -> None:
    mailbox = on(runtime, server, trust_condstore=False)
    mailbox.sync(2)
    change(server)

    mailbox.sync()

    is_in_step(mailbox)
    assert server.commands["ENABLE"] == 0
    assert not any(b"CHANGEDSINCE" in line or b"(QRESYNC" in line for line in server.lines)


def test_a_server_that_stops_offering_qresync_is_followed_on(mailbox: Followed, server: TrackingImap) -> None:
    for capabilities in (CONDSTORE, PLAIN, QRESYNC):
        server.faults = Faults(capabilities=capabilities)
        mailbox.rows("UPDATE mailwright.mailbox_secrets SET updated_at = now()")  # so that it logs in anew
        server.add(mail(100 + len(capabilities)))
        server.expunge(min(server.folders[b"INBOX"]))
        server.flag(max(server.folders[b"INBOX"]) - 3, b"\\Seen")
        mailbox.sync(2)
        assert mailbox.same_as_server()

    assert mailbox.events()["message.received"] == mailbox.events()["message.deleted"] == 3
    assert mailbox.events()["message.flags_changed"] == 3


def test_a_renumbered_folder_is_not_told_by_what_was_known(mailbox: Followed, server: TrackingImap) -> None:
    server.reset(first=100)

    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert mailbox.events()["folder.reset"] == 1
    assert mailbox.events()["message.deleted"] == 0
