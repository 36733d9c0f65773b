"""Mail that came by IMAP is found by its words: by whom it may be found, and no longer than it is there."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from config.errors import PermissionDenied, UserError
from tasks.access import SYSTEM, Actor
from tasks.mailboxes.removal import remove
from tasks.runtime import Runtime
from tasks.sync.search import Sought, index_due, search_messages
from tests.mail.commands.test_command_line import Run, run  # noqa: F401  a fixture
from tests.mail.sync.conftest import Follow, Followed, follow  # noqa: F401  a fixture

INVOICE = (
    b"From: Shop of Lights <billing@lights.example>\r\nTo: Anna <anna@test.example>\r\n"
    b"Subject: Your invoice 4711\r\nMessage-ID: <1@lights.example>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    b"<style>.hidden { color: magenta }</style><p>Thank&nbsp;you</p><p>for <b>three</b> lanterns, "
    b"caf\xc3\xa9</p><script>var banana</script>\r\n"
    b"--b\r\nContent-Type: application/pdf; name=terms.pdf\r\nContent-Disposition: attachment\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--\r\n"
)
CHINESE = (
    "From: 王芳 <fang@cn.example>\r\nTo: anna@test.example\r\nSubject: 会议纪要\r\n"
    "Message-ID: <2@cn.example>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    "请查看附件中的会议纪要。下次会议在星期五。\r\n"
).encode()
PLAIN = (
    b"From: billing@other.example\r\nTo: ben@lights.example\r\nSubject: lunch\r\nMessage-ID: <3@x>\r\n\r\n"
    b"The invoice can wait. See you at noon.\r\n"
)


def index(mailbox: Followed) -> int:
    """Index all, also what would wait its minute."""
    mailbox.rows("UPDATE mailwright.search_backlog SET due_at = now()")
    return index_due(mailbox.runtime)


def found(
    runtime: Runtime, words: str = "", *, actor: Actor = SYSTEM, address: str | None = None, **more: Any
) -> list[str]:
    with runtime.db.begin() as session:
        rows = search_messages(session, actor, Sought(words, **more), address=address)
    return [row.subject for row in rows]


@pytest.fixture
def three(follow: Follow) -> Followed:  # noqa: F811
    mailbox = follow([INVOICE, CHINESE, PLAIN])
    mailbox.sync()
    assert index(mailbox) == 3
    return mailbox


WORDS = {
    "invoice": ["lunch", "Your invoice 4711"],  # newest first
    "INVOICE lanterns": ["Your invoice 4711"],
    "thank you": ["Your invoice 4711"],  # blocks and entities divide words, inline marks do not
    '"for three lanterns"': ["Your invoice 4711"],
    '"three for"': [],
    "café": ["Your invoice 4711"],
    "terms.pdf": ["Your invoice 4711"],
    "invoice -lanterns": ["lunch"],
    "noon or lanterns": ["lunch", "Your invoice 4711"],
    "lant*": ["Your invoice 4711"],
    "lant": [],
    "magenta": [],  # a style, as the script, is not what anybody reads
    "banana": [],
    "billing@lights.example": ["Your invoice 4711"],
    "纪要": ["会议纪要"],
    "星期五 王芳": ["会议纪要"],
    "要": ["会议纪要"],
    "纪会": [],
    "@1": [],  # no door to the lexeme that names a mailbox
}


def test_messages_are_found_by_their_words(three: Followed) -> None:
    assert {words: found(three.runtime, words) for words in WORDS} == WORDS


def test_parts_folders_and_times_narrow_the_search(three: Followed) -> None:
    runtime = three.runtime
    assert found(runtime, sender="billing") == ["lunch", "Your invoice 4711"]
    assert found(runtime, sender="lights") == ["Your invoice 4711"]
    assert found(runtime, recipient="lights") == ["lunch"]
    assert found(runtime, subject="invoice") == ["Your invoice 4711"]
    assert found(runtime, "noon", subject="lunch", sender="other") == ["lunch"]
    assert found(runtime, "invoice", folder="INBOX") == ["lunch", "Your invoice 4711"]
    assert found(runtime, "invoice", folder="Archive") == []
    (arrived,) = {row.internal_at for row in three.rows("SELECT internal_at FROM mailwright.messages")}
    assert len(found(runtime, "invoice", since=arrived)) == 2
    assert found(runtime, "invoice", before=arrived) == []
    assert found(runtime, "invoice", since=arrived + timedelta(seconds=1)) == []


def test_each_finds_what_they_may_read(three: Followed) -> None:
    runtime = three.runtime
    three.rows("INSERT INTO mailwright.users (name) VALUES ('bob'), ('eve')")
    three.rows(
        "UPDATE mailwright.mailboxes SET owner_id = (SELECT id FROM mailwright.users WHERE name = 'bob')"
    )

    assert found(runtime, "lanterns", actor=Actor("bob")) == ["Your invoice 4711"]
    assert found(runtime, "lanterns", actor=Actor("bob"), address="anna@test.example") == [
        "Your invoice 4711"
    ]
    for address in (None, "anna@test.example"):
        with pytest.raises(PermissionDenied):
            found(runtime, "lanterns", actor=Actor("eve"), address=address)
    three.rows("UPDATE mailwright.message_search SET mailbox_id = 0, words = words || '''@0'''::tsvector")
    assert found(runtime, "lanterns", actor=Actor("bob")) == []


@pytest.mark.parametrize("words", ["", "?!", "word " * 33])
def test_nothing_sought_is_one_clear_sentence(three: Followed, words: str) -> None:
    with pytest.raises(UserError, match=r"at least one word|at most 32"):
        found(three.runtime, words)


def test_news_is_due_at_once_and_history_waits(follow: Follow) -> None:  # noqa: F811
    mailbox = follow([INVOICE])
    mailbox.sync()
    assert index_due(mailbox.runtime) == 0
    mailbox.server.add(PLAIN)
    mailbox.sync()

    assert index_due(mailbox.runtime) == 1

    assert found(mailbox.runtime, "invoice") == ["lunch"]
    wait = mailbox.rows("SELECT due_at - now() AS wait FROM mailwright.search_backlog")[0].wait
    assert timedelta(seconds=30) < wait <= timedelta(seconds=60)


def test_who_dies_of_indexing_holds_up_nobody(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    mailbox = follow([INVOICE])
    mailbox.sync()
    mailbox.rows("UPDATE mailwright.search_backlog SET due_at = now()")
    with monkeypatch.context() as patch:
        patch.setattr("tasks.sync.search.index.index_words", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            index_due(mailbox.runtime)
    mailbox.server.add(PLAIN)
    mailbox.sync()

    assert index_due(mailbox.runtime) == 1
    assert found(mailbox.runtime, "invoice") == ["lunch"]
    assert index(mailbox) == 1
    assert found(mailbox.runtime, "invoice") == ["lunch", "Your invoice 4711"]
    assert mailbox.rows("SELECT 1 FROM mailwright.search_backlog") == []


def test_indexing_twice_is_indexing_once(three: Followed) -> None:
    three.rows(
        "INSERT INTO mailwright.search_backlog (mailbox_id, message_ids) "
        "SELECT mailbox_id, array_agg(id) || 999999 FROM mailwright.messages GROUP BY 1"
    )
    assert index(three) == 4
    assert three.rows("SELECT count(*) AS n FROM mailwright.message_search")[0].n == 3


def test_a_hostile_text_is_indexed_up_to_the_bound(follow: Follow) -> None:  # noqa: F811
    head = b"Subject: hostile\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    distinct = " ".join(f"{n:x}" for n in range(4096, 150_000)).encode()
    characters = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(250_000)).encode()
    mailbox = follow(
        [head + distinct, head + characters, head + b"1a" * 200_000, head + b"a.b/c-d@e " * 60_000]
    )
    mailbox.sync()

    begun = time.monotonic()
    assert index(mailbox) == 4

    assert found(mailbox.runtime, "hostile 1000") == ["hostile"]
    assert len(found(mailbox.runtime, "hostile")) == 4
    largest = mailbox.rows("SELECT max(length(words)) AS n FROM mailwright.message_search")[0].n
    assert largest > 30_000
    assert time.monotonic() - begun < 60


def test_what_is_deleted_or_removed_is_not_kept_in_the_index(three: Followed) -> None:
    del three.server.folders[b"INBOX"][1]
    three.sync(3)
    assert three.messages("deleted") == 1
    assert found(three.runtime, "lanterns") == []
    assert three.rows("SELECT count(*) AS n FROM mailwright.message_search")[0].n == 2

    remove(SYSTEM, three.runtime, "anna@test.example")

    for table in ("message_search", "search_backlog"):
        assert three.rows(f"SELECT 1 FROM mailwright.{table}") == []


def test_the_index_is_what_serves_a_search(three: Followed) -> None:
    three.rows(
        "INSERT INTO mailwright.messages (mailbox_id, digest, size, announced) "
        "SELECT 1, '\\x00', 1, false FROM generate_series(1, 20000)"
    )
    three.rows(
        "INSERT INTO mailwright.message_search "
        "SELECT id, 7, now(), to_tsvector('simple', 'invoice ' || id) || '''@7'''::tsvector "
        "FROM mailwright.messages WHERE size = 1"
    )
    three.rows("ANALYZE mailwright.message_search")
    plan = "\n".join(
        row[0]
        for row in three.rows(
            "EXPLAIN SELECT FROM mailwright.message_search WHERE words @@ '''@1'' & ''invoice'''::tsquery"
        )
    )
    assert "message_search_words" in plan


def test_the_command_line_searches(three: Followed, run: Run) -> None:  # noqa: F811
    line = run("--json", "message", "search", "invoice", "--from", "lights").json()

    assert (line["subject"], line["mailbox"], line["folders"]) == (
        "Your invoice 4711",
        "anna@test.example",
        ["INBOX"],
    )
    later = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    assert "nothing was found" in run("message", "search", "invoice", "--since", later).out
    assert "lunch" in run("message", "search", "--", "invoice", "-lanterns").out
    refused = run("message", "search", "!!")
    assert (refused.code, "at least one word" in refused.err) == (1, True)
