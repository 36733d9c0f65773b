"""Mail on its way out, in rounds, and the reckoning with the server that received it."""

import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from lab.crash.books import EVENTS
from lab.crash.programs import Program, mailwright
from lab.crash.stack import FILED, WRITERS, CrashStack

MANY, FEW = 51, 8
"""Messages of a round from one mailbox, whose lane so gets several connections, and from each other."""
ENDS = ("sent", "uncertain", "failed", "expired", "cancelled")


def enqueue_round(stack: CrashStack, random: Random, writers: Sequence[str] = WRITERS) -> list[str]:
    """Put mail of all writers into the queue, in one transaction by the SQL door. Returns the ids."""
    busy = random.choice(writers)
    wishes = [
        {"mailbox": writer, "to": _somebody(random), "size": random.randint(1, 200)}
        for writer in writers
        for _ in range(MANY if writer == busy else FEW)
    ]
    random.shuffle(wishes)
    rows = stack.rows(
        "SELECT mailwright.enqueue(w.mailbox, jsonb_build_object("
        "  'to', jsonb_build_array(w.to), 'subject', 'Round', 'text', repeat(E'Guten Tag.\\n', w.size)))"
        '::text FROM jsonb_to_recordset(cast(:wishes AS jsonb)) AS w (mailbox text, "to" text, size int)',
        wishes=json.dumps(wishes),
    )
    return [row[0] for row in rows]


def settled(stack: CrashStack, mail: Sequence[str]) -> int:
    """How many of these messages have come to an end, or into doubt, and are committed so."""
    return int(
        stack.one(
            "SELECT count(*) FROM mailwright.outbox "
            "WHERE uid = ANY(cast(:mail AS uuid[])) AND state = ANY(:ends)",
            mail=list(mail),
            ends=list(ENDS),
        )
    )


def in_data(stack: CrashStack, frozen: Program, at: float) -> int:
    """How many messages of a worker frozen since ``at`` (seconds since the epoch) are inside DATA: begun,
    and surely without their final reply then, because the server noted them too lately to have said so."""
    pause = stack.smtp.behaviour.pause_after_dot[0]
    begun = stack.rows(
        "SELECT a.uid::text AS attempt, l.lease_owner FROM mailwright.data_started d "
        "JOIN mailwright.attempts a ON a.uid = d.attempt_uid AND a.ended_at IS NULL "
        "JOIN mailwright.outbox o ON o.id = a.outbound_id "
        "JOIN mailwright.outbox_lanes l ON l.mailbox_id = o.mailbox_id WHERE l.lease_until > now()"
    )
    noted = {accepted.attempt: accepted.time for accepted in stack.smtp.accepted()}
    return sum(
        1
        for row in begun
        if stack.owner(row.lease_owner) is frozen and noted.get(row.attempt, at) + pause > at
    )


def assert_each_delivered_as_told(stack: CrashStack, mail: Sequence[str]) -> Counter[str]:
    """What the queue tells of each message agrees with itself and with the receiving server.

    Sent: delivered once. Uncertain: at most once. Either may have been deferred before, where a lease
    was about to end and the dot was withheld. Returns how many are in which state.
    """
    delivered = Counter(accepted.message_id for accepted in stack.smtp.accepted())
    rows = _told(stack, mail)
    for row in rows:
        times, told = delivered[row.message_id], f"{row.uid} is {row.state}"
        assert times <= 1, f"{told} and was delivered {times} times"
        if row.state == "sent":
            assert times == 1, f"{told} and was not delivered"
        assert row.recipients == [row.state], f"{told}, its recipients {row.recipients}"
        *earlier, last = row.outcomes
        assert last == row.state, f"{told}, its attempts {row.outcomes}"
        assert set(earlier) <= {"deferred"}, f"{told}, its attempts {row.outcomes}"
        assert row.attempts == len(row.outcomes), f"{told} after {row.attempts} attempts"
        wanted = {"outbound.queued": 1, f"outbound.{row.state}": 1}
        if earlier:
            wanted["outbound.deferred"] = len(earlier)
        assert row.events == wanted, f"{told}, its events are {row.events}"
    return Counter(row.state for row in rows)


def assert_all_doubt_ended(stack: CrashStack, mail: Sequence[str]) -> Counter[str]:
    """Mail of `FILED` is sent, each message delivered once, and its only copy in Sent is the server's own.

    Whatever was in doubt was settled by that copy, or sent again because there is none. Returns how many
    went without doubt (``sure``), how many a copy settled (``copy``), how many went again (``again``).
    """
    delivered = Counter(accepted.message_id for accepted in stack.filing.accepted())
    copies = _copies_in_sent(stack, FILED)
    ends: Counter[str] = Counter()
    for row in _told(stack, mail):
        told = f"{row.uid} is {row.state}, its attempts {row.outcomes}, its events {row.events}"
        assert delivered[row.message_id] == 1, f"{told}: delivered {delivered[row.message_id]} times"
        assert copies[row.message_id] == 1, f"{told}: {copies[row.message_id]} copies in Sent"
        assert (row.state, row.recipients) == ("sent", ["sent"]), told
        *earlier, last = row.outcomes
        assert last == "sent", told
        assert set(earlier) <= {"deferred", "uncertain"}, told
        again, doubts = earlier.count("uncertain"), row.events.get("outbound.uncertain", 0)
        wanted = Counter({"outbound.queued": 1 + again, "outbound.sent": 1, "outbound.uncertain": doubts})
        wanted["outbound.deferred"] = earlier.count("deferred")
        assert +wanted == row.events, told
        assert again <= doubts <= again + 1, told
        ends["again"] += again
        ends["copy"] += doubts - again
        ends["sure"] += doubts == 0
    return ends


def _told(stack: CrashStack, mail: Sequence[str]) -> list[Any]:
    """What the queue and the events tell of these messages, all of them."""
    rows = stack.rows(
        "WITH mine AS (SELECT id, uid, state, message_id, attempts FROM mailwright.outbox"
        "  WHERE uid = ANY(cast(:mail AS uuid[]))),"
        " told AS (SELECT subject, jsonb_object_agg(type, n) AS events FROM"
        f"  (SELECT subject, type, count(*) AS n FROM {EVENTS} AS x"
        "   WHERE subject = ANY(cast(:mail AS text[])) GROUP BY 1, 2) AS counted GROUP BY 1)"
        "SELECT o.uid::text AS uid, o.state, o.message_id, o.attempts, told.events,"
        "  (SELECT array_agg(DISTINCT r.state) FROM mailwright.outbox_recipients r"
        "   WHERE r.outbound_id = o.id) AS recipients,"
        "  (SELECT array_agg(a.outcome ORDER BY a.ended_at) FROM mailwright.attempts a"
        "   WHERE a.outbound_id = o.id) AS outcomes "
        "FROM mine AS o LEFT JOIN told ON told.subject = o.uid::text",
        mail=list(mail),
    )
    assert sorted(row.uid for row in rows) == sorted(mail), "accepted, and not in the queue"
    return rows


def assert_doubt_is_listed(stack: CrashStack) -> None:
    """``outbox list`` names every message in doubt."""
    done = subprocess.run(
        [mailwright(), "--json", "outbox", "list", "--state", "uncertain", "--limit", "10000"],
        env=dict(stack.environment),
        cwd=stack.directory,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    uncertain = stack.rows("SELECT uid::text FROM mailwright.outbox WHERE state = 'uncertain'")
    assert sorted(listed) == sorted(row.uid for row in uncertain)


def assert_copied_to_sent_once(stack: CrashStack) -> None:
    """Each message that was sent has one copy in its Sent folder on the server; none else has one."""
    stack.wait(
        lambda: not stack.one("SELECT count(*) FROM mailwright.commands WHERE state = 'queued'"),
        "copies filed in Sent",
    )
    rows = stack.rows(
        "SELECT o.message_id FROM mailwright.outbox AS o "
        "JOIN mailwright.mailboxes AS b ON b.id = o.mailbox_id "
        "WHERE o.state = 'sent' AND b.address = ANY(:writers)",
        writers=list(WRITERS),
    )
    assert _copies_in_sent(stack, WRITERS) == Counter(row.message_id for row in rows)


def _copies_in_sent(stack: CrashStack, writers: Sequence[str]) -> Counter[str]:
    """The Message-IDs in the server's files of Sent."""
    return Counter(
        line.partition(b":")[2].strip().decode()
        for writer in writers
        for path in stack.dovecot.files(writer, "Sent")
        for line in path.read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")[0].splitlines()
        if line.lower().startswith(b"message-id:")
    )


def _somebody(random: Random) -> str:
    return f"{random.randbytes(4).hex()}@remote.example"
