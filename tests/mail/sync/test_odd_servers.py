"""Servers that hang up, go silent, refuse logins, contradict themselves: the schedule knows why, nothing is
half stored, and the next sync completes."""

import pytest

from config.settings import Settings
from lab.servers.imap_faults import Faults, Stage
from tests.mail.sync.conftest import Follow, Followed
from tests.mail.sync.odd_imap import mails

MAIL = {b"INBOX": mails(6), b"Sent": mails(2, first=20)}
STEPS = [
    Stage.GREETING,
    Stage.LOGIN,
    Stage.LIST,
    Stage.SELECT,
    Stage.STATUS,
    Stage.FETCH,
    Stage.LITERAL,
    Stage.AFTER_LITERAL,
]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A server may be silent for a second."""
    return settings.model_copy(update={"imap_timeout_seconds": 1.0, "lease_seconds": 10.0})


def fails_and_recovers(mailbox: Followed, faults: Faults, *, synced_before: bool) -> None:
    """Two failed syncs, then a good one."""
    before = mailbox.messages()
    mailbox.server.faults = faults

    mailbox.sync()

    first = mailbox.schedule()
    assert (first.failures, first.lease_owner, first.lease_until) == (1, None, None)
    assert first.last_error
    assert 5 <= first.wait <= 15
    mailbox.sync()
    second = mailbox.schedule()
    assert (second.failures, second.lease_owner) == (2, None)
    assert 10 <= second.wait <= 30
    raws = mailbox.rows("SELECT count(*) AS n FROM mailwright.raw_messages")[0].n
    places = mailbox.rows("SELECT count(*) AS n FROM mailwright.places")[0].n
    assert mailbox.messages() == raws == places >= before
    mailbox.server.faults = Faults()
    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert mailbox.schedule().failures == 0
    assert mailbox.schedule().last_error is None
    assert mailbox.messages() == (9 if synced_before else 8)
    assert mailbox.events()["message.received"] == (1 if synced_before else 0)
    assert mailbox.events()["message.unreadable"] == 0


@pytest.mark.parametrize("stage", [stage for stage in STEPS if stage is not Stage.STATUS])
def test_hanging_up_at_any_step_of_the_first_sync(follow: Follow, stage: Stage) -> None:
    fails_and_recovers(follow(MAIL), Faults(close=frozenset({stage})), synced_before=False)


@pytest.mark.parametrize("stage", [Stage.LIST, Stage.FETCH])
@pytest.mark.parametrize("kind", ["bye", "hang", "drip"])
def test_goodbye_silence_and_dripping(follow: Follow, stage: Stage, kind: str) -> None:
    faults = Faults(**{kind: frozenset({stage})})  # type: ignore[arg-type]
    fails_and_recovers(follow(MAIL), faults, synced_before=False)


def test_hanging_up_at_the_cheap_look(follow: Follow) -> None:
    """The second try opens folders instead of asking STATUS, so that a folder can be blamed."""
    mailbox = follow(MAIL)
    mailbox.sync()
    mailbox.server.add(mails(1, first=50)[0])
    mailbox.server.faults = Faults(close=frozenset({Stage.STATUS}))

    mailbox.sync()
    assert mailbox.schedule().failures == 1
    mailbox.sync()

    assert mailbox.schedule().failures == 0
    assert mailbox.same_as_server()


def test_hanging_up_amid_the_second_sync(follow: Follow) -> None:
    mailbox = follow(MAIL)
    mailbox.sync()
    mailbox.server.add(mails(1, first=50)[0])
    fails_and_recovers(mailbox, Faults(close=frozenset({Stage.LITERAL})), synced_before=True)


def test_three_refused_logins_are_one_event_and_no_storm(follow: Follow) -> None:
    mailbox = follow(MAIL, password="wrong")
    for _ in range(5):
        mailbox.sync()
        mailbox.rows("UPDATE mailwright.mailboxes SET imap_retry_at = NULL")

    row = mailbox.rows("SELECT state, imap_refusals FROM mailwright.mailboxes")[0]
    assert (row.state, row.imap_refusals) == ("needs_attention", 5)
    assert mailbox.events()["mailbox.needs_attention"] == 1
    assert mailbox.schedule().lease_owner is None
    assert mailbox.schedule().wait > 3000


def test_a_mailbox_that_rests_after_a_refusal_is_postponed_and_fails_no_more(follow: Follow) -> None:
    mailbox = follow(MAIL, password="wrong")
    mailbox.sync()
    failures = mailbox.schedule().failures
    logins = mailbox.server.sessions

    mailbox.sync(2)

    schedule = mailbox.schedule()
    assert mailbox.server.sessions == logins
    assert (schedule.failures, schedule.lease_owner) == (failures, None)
    assert 50 < schedule.wait <= 66
    assert "refused the credentials" in schedule.last_error


def test_a_mailbox_that_waits_for_a_person_is_looked_at_in_an_hour(follow: Follow) -> None:
    mailbox = follow(MAIL)
    mailbox.rows("UPDATE mailwright.mailboxes SET awaiting_confirmation = true")

    mailbox.sync()

    schedule = mailbox.schedule()
    assert (schedule.failures, schedule.lease_owner) == (0, None)
    assert 3500 < schedule.wait <= 3600
    mailbox.rows("UPDATE mailwright.mailboxes SET awaiting_confirmation = false")
    mailbox.sync()
    assert mailbox.same_as_server()


@pytest.mark.parametrize(
    "words",
    [
        b"NO [UNAVAILABLE] Temporary authentication failure",
        b"NO [ALERT] Too many simultaneous connections. (Failure)",
        b"NO [LIMIT] slow down",
        b"NO Server busy, try again later",
    ],
)
def test_a_busy_server_has_refused_nobody(follow: Follow, words: bytes) -> None:
    mailbox = follow(MAIL, Faults(reply={Stage.LOGIN: words}))

    mailbox.sync(4)

    row = mailbox.rows("SELECT state, imap_refusals FROM mailwright.mailboxes")[0]
    assert (row.state, row.imap_refusals) == ("active", 0)
    assert mailbox.schedule().failures == 4
    mailbox.server.faults = Faults()
    mailbox.sync()
    assert mailbox.same_as_server()


def test_condstore_offered_and_refused_is_done_without(follow: Follow) -> None:
    mailbox = follow(MAIL, Faults(capabilities=b"IMAP4rev1 CONDSTORE AUTH=PLAIN UNSELECT"))
    server = mailbox.server
    server.modseq, server.refuse_modseq = 99, True

    mailbox.sync(2)
    assert mailbox.same_as_server()
    server.add(mails(1, first=70)[0])
    server.flags[b"INBOX", 2] = b"\\Flagged"
    del server.folders[b"INBOX"][4]
    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert mailbox.events()["message.flags_changed"] == 1
    assert mailbox.events()["message.received"] == 1
    assert mailbox.schedule().failures == 0
    assert mailbox.folder("INBOX").failures == 0


def test_modseqs_without_condstore_are_not_believed(follow: Follow) -> None:
    mailbox = follow(MAIL)
    mailbox.server.modseq, mailbox.server.refuse_modseq = 99, True
    mailbox.sync()
    mailbox.server.flags[b"INBOX", 2] = b"\\Flagged"

    mailbox.sync()

    assert mailbox.events()["message.flags_changed"] == 1
    assert not any(b"MODSEQ" in line or b"CHANGEDSINCE" in line for line in mailbox.server.lines)


@pytest.mark.parametrize("modseq", [98, 5])
def test_a_modseq_that_goes_backwards_hides_no_change(follow: Follow, modseq: int) -> None:
    mailbox = follow(MAIL, Faults(capabilities=b"IMAP4rev1 CONDSTORE AUTH=PLAIN UNSELECT"))
    mailbox.server.modseq = 99
    mailbox.sync()
    mailbox.server.flags[b"INBOX", 2] = b"\\Flagged"
    del mailbox.server.folders[b"INBOX"][4]
    mailbox.server.modseq = modseq

    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert mailbox.events()["message.flags_changed"] == 1
    assert mailbox.events()["message.deleted"] == 1


def test_an_unchanged_mailbox_costs_one_status_a_folder(follow: Follow) -> None:
    mailbox = follow(MAIL, Faults(capabilities=b"IMAP4rev1 CONDSTORE AUTH=PLAIN UNSELECT"))
    mailbox.server.modseq = 99
    mailbox.sync()
    mailbox.server.commands.clear()

    mailbox.sync()

    assert mailbox.server.commands["STATUS"] == 2
    assert mailbox.server.commands["EXAMINE"] == mailbox.server.commands["FETCH"] == 0


@pytest.mark.parametrize("oblige", [False, True])
def test_no_uidnext_and_a_last_message_for_every_star(follow: Follow, oblige: bool) -> None:
    mailbox = follow(MAIL, Faults(no_uidnext=True))
    mailbox.server.oblige_last = oblige
    mailbox.sync(2)
    assert mailbox.same_as_server()
    mailbox.server.add(mails(1, first=70)[0])
    del mailbox.server.folders[b"INBOX"][1]

    mailbox.sync(2)

    assert mailbox.same_as_server()
    assert mailbox.events()["message.received"] == 1
    assert mailbox.events()["message.deleted"] == 1
