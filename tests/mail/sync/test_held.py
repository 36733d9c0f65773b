"""Sessions rest between polls; nothing changed is one STATUS a folder and no row but the schedule's."""

import subprocess
import time
from pathlib import Path

import pytest

from config.queues import Lane
from config.settings import Settings
from lab.crash.programs import mailwright
from lab.servers.imap_faults import PASSWORD, Faults, Stage
from lab.world import add_mailbox, sync_now
from tasks.access import SYSTEM
from tasks.sync import compare_all, polling, sync_due
from tests.mail.sync.conftest import Follow, Followed
from tests.mail.sync.odd_imap import mail, mails

CONDSTORE = Faults(capabilities=b"IMAP4rev1 SASL-IR AUTH=PLAIN UNSELECT CONDSTORE ENABLE")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A look waits a third of a second."""
    return settings.model_copy(update={"imap_timeout_seconds": 2.0, "lease_seconds": 3.0})


def followed(follow: Follow) -> Followed:
    """A mailbox of two folders on a server with CONDSTORE, synced, whose session rests."""
    mailbox = follow({b"INBOX": mails(3), b"Sent": mails(2, first=10)}, CONDSTORE)
    mailbox.server.modseq = 9
    mailbox.sync(2)
    mailbox.server.commands.clear()
    mailbox.server.sessions = 0
    return mailbox


def poll(mailbox: Followed) -> None:
    """Let a worker's task run with every mailbox due."""
    mailbox.rows("UPDATE mailwright.schedule SET next_poll_at = now() - interval '1 day'")
    assert sync_due(SYSTEM, mailbox.runtime, Lane.SYNC, lambda: None) > 0


def test_nothing_changed_is_one_status_a_folder_on_the_session_that_rests(follow: Follow) -> None:
    mailbox = followed(follow)
    before = mailbox.events()
    rows = mailbox.rows("SELECT xmin::text FROM mailwright.folder_epochs ORDER BY id")

    for _ in range(3):
        poll(mailbox)

    assert mailbox.server.sessions == 0
    assert mailbox.server.commands == {"STATUS": 6}
    assert mailbox.events() == before
    assert mailbox.rows("SELECT xmin::text FROM mailwright.folder_epochs ORDER BY id") == rows
    assert mailbox.schedule().lease_owner is None
    assert mailbox.schedule().wait > 0


def test_what_changed_is_found_on_the_session_that_rests(follow: Follow) -> None:
    mailbox = followed(follow)
    mailbox.server.add(mail(99))
    mailbox.server.modseq = 10

    poll(mailbox)

    assert mailbox.same_as_server()
    assert mailbox.server.sessions == 0
    mailbox.server.commands.clear()
    poll(mailbox)
    assert mailbox.server.commands == {"STATUS": 2}


def test_a_new_folder_is_noticed(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    mailbox = followed(follow)
    monkeypatch.setattr(polling, "LIST_EVERY", -1.0)
    mailbox.server.folders[b"New"] = dict(enumerate(mails(1, first=50), start=1))

    poll(mailbox)

    assert mailbox.same_as_server()
    assert mailbox.folder("New").followed


def test_who_asks_for_a_sync_has_new_folders_found_at_once(follow: Follow) -> None:
    mailbox = followed(follow)
    mailbox.server.folders[b"New"] = dict(enumerate(mails(1, first=50), start=1))
    mailbox.rows("UPDATE mailwright.schedule SET asked = true")

    poll(mailbox)

    assert mailbox.same_as_server()
    assert mailbox.folder("New").followed


def test_a_session_that_died_at_rest_is_replaced_without_a_fault(follow: Follow) -> None:
    mailbox = followed(follow)
    mailbox.server.faults = Faults(close=frozenset({Stage.STATUS, Stage.LIST}))
    mailbox.server.before = lambda name, _rest: revive() if name == "AUTHENTICATE" else None

    def revive() -> None:
        mailbox.server.faults = CONDSTORE

    poll(mailbox)

    assert mailbox.server.sessions == 1
    assert mailbox.schedule().failures == 0
    assert mailbox.schedule().wait > 0


def test_changed_credentials_are_used_at_the_next_poll(follow: Follow) -> None:
    mailbox = followed(follow)
    mailbox.rows("UPDATE mailwright.mailbox_secrets SET updated_at = now()")

    poll(mailbox)

    assert mailbox.server.sessions == 1
    assert mailbox.server.commands["AUTHENTICATE"] == 1


def test_a_silent_server_does_not_keep_the_others_of_its_look(follow: Follow) -> None:
    quiet, well = followed(follow), []
    provider = quiet.rows("SELECT provider_id FROM mailwright.mailboxes")[0].provider_id
    for number in range(3):
        well.append(add_mailbox(quiet.runtime, provider, f"b{number}@test.example", PASSWORD))
        quiet.rows("UPDATE mailwright.schedule SET next_poll_at = 'infinity'")
        sync_now(quiet.runtime, well[-1])
    asked: list[bytes] = []

    def stall(name: str, rest: bytes) -> None:
        if name == "STATUS" and not asked:
            asked.append(rest)
            quiet.server.ended.wait(2)

    quiet.server.before = stall

    poll(quiet)

    rows = quiet.rows("SELECT failures, lease_owner, next_poll_at > now() AS done FROM mailwright.schedule")
    assert [tuple(row) for row in rows] == [(0, None, True)] * 4
    assert asked


def test_an_asked_for_poll_tells_when_it_is_done(follow: Follow) -> None:
    mailbox = followed(follow)
    mailbox.rows("UPDATE mailwright.schedule SET asked = true")

    poll(mailbox)

    assert mailbox.events()["sync.completed"] == 2
    assert not mailbox.schedule().asked


def test_a_full_sync_compares_what_no_modseq_tells(follow: Follow) -> None:
    mailbox = followed(follow)
    mailbox.server.flags = {(b"INBOX", 2): b"\\Answered"}
    poll(mailbox)
    assert mailbox.events()["message.flags_changed"] == 0
    with mailbox.runtime.db.begin() as session:
        compare_all(session, [mailbox.id])

    poll(mailbox)

    assert mailbox.events()["message.flags_changed"] == 1


@pytest.mark.parametrize(("options", "found"), [(["--wait"], 0), (["--full", "--wait"], 1)])
def test_a_person_asks_for_all_to_be_compared(
    options: list[str], found: int, follow: Follow, settings: Settings, tmp_path: Path
) -> None:
    """A server that counts no change of flags: only the full sync finds it."""
    mailbox = followed(follow)
    mailbox.server.flags = {(b"INBOX", 2): b"\\Answered"}
    assert settings.database_url is not None
    environment = {
        "MAILWRIGHT_HOME": str(tmp_path),
        "MAILWRIGHT_DATABASE_URL": settings.database_url.get_secret_value(),
        "MAILWRIGHT_BROKER_URL": "redis://127.0.0.1:1/0",
    }
    (row,) = mailbox.rows("SELECT address FROM mailwright.mailboxes")
    command = [str(mailwright()), "sync", row.address, *options]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE) as asking:
        while asking.poll() is None:
            sync_due(SYSTEM, mailbox.runtime, Lane.SYNC, lambda: None)
            time.sleep(0.05)
        assert asking.stdout is not None
        said = asking.stdout.read()

    assert (asking.returncode, said) == (0, b"synced 1 mailbox\n")
    assert mailbox.events()["message.flags_changed"] == found
