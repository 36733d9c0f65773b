"""The session against a server that misbehaves."""

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.errors import TransientError
from lab.servers.certificates import Certificate, issue
from lab.servers.imap_faults import PASSWORD, Faults, FaultyImap, Stage
from tasks.wire import net
from tasks.wire.imap import (
    CommandRefused,
    Disconnected,
    FolderUnavailable,
    ImapError,
    ImapSession,
    LoginRefused,
    ProtocolError,
    ServerBusy,
)

MAIL = [b"Message-ID: <%d@x>\r\n\r\nbody %d\xff\r\n" % (uid, uid) for uid in range(1, 6)]
PATIENCE = 0.6
"""Seconds that sessions wait here."""
SLACK = 5.0
"""Seconds that a busy machine may take beyond."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return issue(tmp_path_factory.mktemp("tls"))


def connect(
    server: FaultyImap,
    security: net.Security = net.Security.NONE,
    password: str = PASSWORD,
    timeout: float = 10.0,
    ca: Path | None = None,
) -> ImapSession:
    """A session with ``server``."""
    endpoint = net.Endpoint(server.host, server.port, security, ca.read_text() if ca else None)
    return ImapSession.open(endpoint, "anna", password, timeout=timeout, connect_timeout=5)


def everything(server: FaultyImap, timeout: float = 10.0) -> list[bytes | None]:
    """Every operation there is, once; the bodies fetched."""
    with connect(server, timeout=timeout) as session:
        session.folders()
        session.status([b"INBOX"])
        session.select(b"INBOX")
        session.noop()
        session.search_message_id("<1@x>")
        return [message.body for message in session.fetch([1, 2, 3, 4, 5], max_bytes=1000)]


def test_all_is_well_without_faults() -> None:
    with FaultyImap(MAIL) as server:
        assert everything(server) == MAIL
        assert server.sessions == server.most_open == 1
        assert server.commands["FETCH"] == 1


STAGES = [stage for stage in Stage if stage not in (Stage.STARTTLS, Stage.APPEND)]


@pytest.mark.parametrize("stage", STAGES)
def test_hanging_up_at_any_step_is_disconnected(stage: Stage) -> None:
    with FaultyImap(MAIL, Faults(close=frozenset({stage}))) as server, pytest.raises(Disconnected):
        everything(server)


@pytest.mark.parametrize("stage", STAGES)
def test_bye_at_any_step_is_told_in_the_servers_words(stage: Stage) -> None:
    faults = Faults(bye=frozenset({stage}), bye_text=b"Moved to\x1b elsewhere")
    if stage is Stage.LITERAL:  # there BYE is content, and then the connection ends
        with FaultyImap(MAIL, faults) as server, pytest.raises(Disconnected):
            everything(server)
        return
    with FaultyImap(MAIL, faults) as server, pytest.raises((Disconnected, ProtocolError)) as caught:
        everything(server)
    if stage is not Stage.AFTER_LITERAL:
        assert "Moved to elsewhere" in str(caught.value)


@pytest.mark.parametrize("stage", [Stage.GREETING, Stage.LOGIN, Stage.LIST, Stage.FETCH])
def test_a_busy_goodbye_is_busy(stage: Stage) -> None:
    faults = Faults(bye=frozenset({stage}), bye_text=b"Too many connections")
    with FaultyImap(MAIL, faults) as server, pytest.raises(ServerBusy):
        everything(server)


@pytest.mark.parametrize("stage", STAGES)
def test_silence_at_any_step_ends_with_the_budget(stage: Stage) -> None:
    with FaultyImap(MAIL, Faults(hang=frozenset({stage}))) as server:
        begun = time.monotonic()
        with pytest.raises(net.TimedOut):
            everything(server, timeout=PATIENCE)
        assert PATIENCE <= time.monotonic() - begun < PATIENCE + SLACK


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage is not Stage.AFTER_LITERAL])
def test_a_drip_does_not_stretch_the_budget(stage: Stage) -> None:
    faults = Faults(drip=frozenset({stage}), drip_seconds=0.2)
    with FaultyImap([b"x" * 2000], faults) as server:
        begun = time.monotonic()
        with pytest.raises(net.TimedOut):
            everything(server, timeout=PATIENCE)
        assert PATIENCE <= time.monotonic() - begun < PATIENCE + SLACK


def test_a_dead_session_says_so_and_nothing_more_is_tried() -> None:
    with FaultyImap(MAIL, Faults(close=frozenset({Stage.NOOP}))) as server:
        session = connect(server)
        with pytest.raises(Disconnected):
            session.noop()
        assert not session.alive
        with pytest.raises(Disconnected):
            session.folders()
        session.close()
        session.close()


# --- STARTTLS


def test_starttls_that_is_not_offered_is_not_skipped(certificate: Certificate) -> None:
    with FaultyImap(MAIL, Faults(strip_starttls=True), certificate=certificate) as server:
        with pytest.raises(net.TlsFailed, match="does not offer STARTTLS"):
            connect(server, net.Security.STARTTLS, ca=certificate.ca_file)
        assert server.commands["LOGIN"] == server.commands["AUTHENTICATE"] == 0


@pytest.mark.parametrize("injected", [b"* CAPABILITY IMAP4rev1\r\n", b"x", b"W2 OK fine\r\n" * 1000])
def test_plaintext_before_the_handshake_is_an_error(certificate: Certificate, injected: bytes) -> None:
    faults = Faults(inject_after_starttls=injected)
    with FaultyImap(MAIL, faults, certificate=certificate) as server:
        with pytest.raises(net.Injected):
            connect(server, net.Security.STARTTLS, ca=certificate.ca_file)
        assert server.commands["LOGIN"] == server.commands["AUTHENTICATE"] == 0


@pytest.mark.parametrize("reply", [b"NO not now", b"BAD what"])
def test_starttls_refused_is_an_error(certificate: Certificate, reply: bytes) -> None:
    faults = Faults(reply={Stage.STARTTLS: reply})
    with FaultyImap(MAIL, faults, certificate=certificate) as server:
        with pytest.raises(CommandRefused, match="STARTTLS"):
            connect(server, net.Security.STARTTLS, ca=certificate.ca_file)
        assert server.commands["AUTHENTICATE"] == 0


@pytest.mark.parametrize("security", [net.Security.TLS, net.Security.STARTTLS])
def test_protected_sessions_work(certificate: Certificate, security: net.Security) -> None:
    tls = security is net.Security.TLS
    with (
        FaultyImap(MAIL, certificate=certificate, tls=tls) as server,
        connect(server, security, ca=certificate.ca_file) as session,
    ):
        assert session.select(b"INBOX").messages == 5


def test_a_greeting_that_is_already_logged_in_cannot_be_secured(certificate: Certificate) -> None:
    faults = Faults(reply={Stage.GREETING: b"* PREAUTH hi"})
    with FaultyImap(MAIL, faults, certificate=certificate) as server, pytest.raises(net.TlsFailed):
        connect(server, net.Security.STARTTLS, ca=certificate.ca_file)


# --- login


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"NO [AUTHENTICATIONFAILED] Invalid credentials", LoginRefused),
        (b"NO LOGIN failed", LoginRefused),
        (b"NO [UNAVAILABLE] Temporary authentication failure", ServerBusy),
        (b"NO [ALERT] Too many simultaneous connections", ServerBusy),
        (b"NO [LIMIT] enough", ServerBusy),
        (b"BAD [AUTHENTICATIONFAILED] no", LoginRefused),
        (b"BAD what", CommandRefused),
    ],
)
def test_a_refused_login_is_judged_by_its_words(reply: bytes, error: type[ImapError]) -> None:
    with FaultyImap(MAIL, Faults(reply={Stage.LOGIN: reply})) as server:
        with pytest.raises(error) as caught:
            connect(server)
        assert type(caught.value) is error
        assert caught.value.remedy


@pytest.mark.parametrize(
    "capabilities",
    [
        b"IMAP4rev1 AUTH=PLAIN SASL-IR",
        b"IMAP4rev1 AUTH=PLAIN",
        b"IMAP4rev1",
        b"IMAP4rev1 LITERAL+",
    ],
)
@pytest.mark.parametrize("password", ["secret", "pä ss", 'q"b\\s', "tab\there", "日本"])
def test_every_password_goes_by_every_way(capabilities: bytes, password: str) -> None:
    with FaultyImap(MAIL, Faults(capabilities=capabilities), password=password) as server:
        if capabilities.endswith((b"IMAP4rev1", b"LITERAL+")) and '"' in password:
            server.password = password.replace("\\", "\\\\").replace('"', '\\"')  # as LOGIN quotes it
        with connect(server, password=password) as session:
            assert session.alive


def test_a_server_that_takes_no_password_is_a_clear_error() -> None:
    with FaultyImap(MAIL, Faults(capabilities=b"IMAP4rev1 LOGINDISABLED")) as server:
        with pytest.raises(LoginRefused, match="STARTTLS"):
            connect(server)
        assert server.commands["LOGIN"] == 0


@pytest.mark.parametrize(
    "echo", [b"NO hunter2 is wrong", b"NO got AGFubmEAaHVudGVyMg== there", b"NO HUNTER2"]
)
def test_a_server_that_repeats_the_password_is_not_quoted(echo: bytes) -> None:
    with FaultyImap(MAIL, Faults(reply={Stage.LOGIN: echo})) as server:
        with pytest.raises(LoginRefused) as caught:
            connect(server, password="hunter2")
        told = f"{caught.value!s} {caught.value!r} {vars(caught.value)}".lower()
        assert "hunter2" not in told
        assert "agfubmea" not in told


def test_another_service_is_told_from_imap() -> None:
    with (
        FaultyImap(MAIL, Faults(reply={Stage.GREETING: b"220 mail ESMTP"})) as server,
        pytest.raises(ProtocolError),
    ):
        connect(server)


# --- what servers tell


@pytest.mark.parametrize(
    "faults",
    [
        Faults(unsolicited=True),
        Faults(junk=True),
        Faults(odd_order=True),
        Faults(literal8=True),
        Faults(odd_order=True, unsolicited=True, junk=True, no_uidnext=True),
        Faults(size_lie=1),
        Faults(size_lie=10**9),
        Faults(size_lie=-1),
    ],
)
def test_odd_answers_are_read_as_meant(faults: Faults) -> None:
    with FaultyImap(MAIL, faults) as server, connect(server) as session:
        session.select(b"INBOX")
        found = list(session.fetch([5, 4, 3, 2, 1], max_bytes=1000))

        assert sorted(message.body or b"" for message in found) == MAIL
        assert {message.flags for message in found} == {("\\Seen",)}
        assert session.alive


@pytest.mark.parametrize(
    "faults",
    [
        Faults(silent=frozenset({2, 4})),
        Faults(without_body=frozenset({2, 4})),
        Faults(nil_body=frozenset({2, 4})),
    ],
)
def test_ok_is_not_stored_a_message_without_body_is_not_yielded(faults: Faults) -> None:
    with FaultyImap(MAIL, faults) as server, connect(server) as session:
        session.select(b"INBOX")
        found = [message.uid for message in session.fetch([1, 2, 3, 4, 5], max_bytes=1000)]

        assert found == [1, 3, 5]


def test_a_body_may_come_quoted() -> None:
    with FaultyImap([b'a "b" \\ c'], Faults(quoted_body=True)) as server, connect(server) as session:
        session.select(b"INBOX")
        (message,) = session.fetch([1], max_bytes=1000)

        assert message.body == b'a "b" \\ c'


@pytest.mark.parametrize("size_lie", [None, 1])
def test_a_body_over_the_maximum_is_not_held_whatever_its_size_was_said_to_be(size_lie: int | None) -> None:
    big = 40_000_000
    with (
        FaultyImap([b"a", b"b" * big, b"c"], Faults(size_lie=size_lie)) as server,
        connect(server) as session,
    ):
        session.select(b"INBOX")
        tracemalloc.start()
        try:
            found = list(session.fetch([1, 2, 3], max_bytes=1_000_000))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert [(message.body, message.oversize) for message in found] == [
            (b"a", False),
            (None, True),
            (b"c", False),
        ]
        # The server's slices of the message are in this process too: half of it at once.
        assert peak < big


def test_a_modseq_is_not_believed_without_condstore() -> None:
    with FaultyImap(MAIL, Faults(modseq_anyway=True)) as server, connect(server) as session:
        assert session.select(b"INBOX").highestmodseq is None
        with pytest.raises(CommandRefused):
            list(session.flags([(1, 9)], changed_since=3))


def test_uidnext_may_be_missing() -> None:
    with FaultyImap(MAIL, Faults(no_uidnext=True)) as server, connect(server) as session:
        assert session.select(b"INBOX").uidnext is None
        assert session.status([b"INBOX"])[b"INBOX"].uidnext is None


def test_flags_beyond_the_end_do_not_bring_the_last_message() -> None:
    with FaultyImap(MAIL, Faults(unsolicited=True)) as server, connect(server) as session:
        session.select(b"INBOX")

        assert list(session.flags([(6, 4_294_967_295)])) == []
        assert {seen.uid for seen in session.flags([(1, 4_294_967_295)])} == {1, 2, 3, 4, 5}
        assert [outline.uid for outline in session.outlines([(2, 3)])] == [2, 3]


def test_no_command_is_too_long_for_yandex() -> None:
    with FaultyImap([b"x"] * 4000, Faults(refuse_longer=4000)) as server, connect(server) as session:
        session.select(b"INBOX")
        odd = list(range(1, 4001, 2))

        assert [message.uid for message in session.fetch(odd, max_bytes=10)] == odd
        assert [seen.uid for seen in session.flags([(uid, uid) for uid in odd])] == odd


def test_a_refused_fetch_leaves_the_session_alive() -> None:
    with (
        FaultyImap([b"x"] * 1000, Faults(reply={Stage.FETCH: b"BAD no"})) as server,
        connect(server) as session,
    ):
        session.select(b"INBOX")
        with pytest.raises(CommandRefused):
            list(session.fetch(range(1, 1001), max_bytes=10))
        server.faults = Faults()

        assert len(list(session.fetch(range(1, 1001), max_bytes=10))) == 1000


def test_a_folder_that_lists_but_cannot_be_selected_stops_nothing() -> None:
    folders = {b"INBOX": MAIL, b"Bad": MAIL}
    with (
        FaultyImap(folders, Faults(refuse_folders=frozenset({b"Bad"}))) as server,
        connect(server) as session,
    ):
        assert {folder.wire_name for folder in session.folders()} == {b"INBOX", b"Bad"}
        assert set(session.status([b"Bad", b"INBOX"])) == {b"INBOX"}
        with pytest.raises(FolderUnavailable):
            session.select(b"Bad")
        assert session.select(b"INBOX").messages == 5


def test_an_iterator_left_half_read_ends_the_session() -> None:
    with FaultyImap(MAIL) as server, connect(server) as session:
        session.select(b"INBOX")
        reading: Iterator[object] = session.fetch([1, 2, 3], max_bytes=100)
        next(reading)
        with pytest.raises(RuntimeError, match="still being read"):
            session.noop()
        del reading
        gc.collect()

        assert not session.alive


def test_an_append_without_answer_can_be_searched_for() -> None:
    with FaultyImap({b"Sent": []}, Faults(append_then_close=True)) as server:
        with connect(server) as session, pytest.raises(Disconnected):
            session.append(b"Sent", b"Message-ID: <q@x>\r\n\r\nhi\r\n", ["\\Seen"], None)
        server.faults = Faults()
        with connect(server) as session:
            session.select(b"Sent")
            assert session.search_message_id("<q@x>") == [1]
            assert session.append(b"Sent", b"x\r\n", [], None) == (7, 2)


OPERATIONS: list[tuple[Stage, Callable[[ImapSession], object]]] = [
    (Stage.LIST, lambda session: session.folders()),
    (Stage.SELECT, lambda session: session.select(b"INBOX")),
    (Stage.SEARCH, lambda session: session.search_message_id("<1@x>")),
    (Stage.APPEND, lambda session: session.append(b"INBOX", b"x\r\n", [], None)),
    (Stage.NOOP, lambda session: session.noop()),
    (Stage.FETCH, lambda session: list(session.fetch([1], max_bytes=10))),
]


@pytest.mark.parametrize(("stage", "operation"), OPERATIONS)
@pytest.mark.parametrize("reply", [b"NO sorry", b"BAD sorry"])
def test_no_and_bad_are_one_sentence_and_the_session_lives(
    stage: Stage, operation: Callable[[ImapSession], object], reply: bytes
) -> None:
    with FaultyImap(MAIL) as server, connect(server) as session:
        session.select(b"INBOX")
        server.faults = Faults(reply={stage: reply})
        with pytest.raises((CommandRefused, FolderUnavailable), match="sorry"):
            operation(session)
        server.faults = Faults()

        session.noop()
        assert session.alive


@pytest.mark.parametrize(("stage", "operation"), OPERATIONS)
def test_throttling_is_busy_and_ends_the_session(
    stage: Stage, operation: Callable[[ImapSession], object]
) -> None:
    with FaultyImap(MAIL) as server, connect(server) as session:
        session.select(b"INBOX")
        server.faults = Faults(reply={stage: b"NO [UNAVAILABLE] later"})
        with pytest.raises(ServerBusy) as caught:
            operation(session)
        assert isinstance(caught.value, TransientError)
        assert not session.alive
