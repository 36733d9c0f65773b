# ruff: noqa: RUF001  a page of arithmetic
"""The page of scale: what one million mailboxes take, worked out of what `make bench` measured last."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from config.settings import Settings
from docs.figures import result_of
from tasks.schedule.values import TIMES_WHEN_WATCHED

MAILBOXES: Final = 1_000_000
RECEIVED: Final = 20
"""Messages that come to a mailbox in a day."""
SENT: Final = 2
PEAK: Final = 3
"""Times the mean of the day in its busiest hour."""
HISTORY: Final = 1_000
"""Messages in a mailbox when it is added."""
KEPT_DAYS: Final = 90
EVENT_BYTES: Final = 1_000
"""About as much as an event takes in the stream."""
DAY: Final = 86_400

Figures = Mapping[str, Any]

ASSUMED: Final[Figures] = {
    "mailboxes": MAILBOXES, "received": RECEIVED, "sent": SENT, "peak": PEAK, "history": HISTORY,
    "kept_days": KEPT_DAYS, "day": DAY, "event_bytes": EVENT_BYTES,
}  # fmt: skip

HEAD: Final = """\
# Scale

{mark}

What {mailboxes:,} mailboxes take, worked out of the [benchmarks](benchmarks.md). They were measured on a
machine of 2 cores that carried everything at once: workers, watcher, relay, Postgres, Valkey, and the mail
server too. A *machine* below is such a one, kept busy; where the mail servers are others' it carries more.
The same machine was up to three times slower on some days than on others, as the peers' figures beside ours
tell: these are orders of size. All grows in proportion, so other numbers can be put in:

| assumed | |
|---|---|
| mailboxes | {mailboxes:,}, each heard of by a watcher |
| mail | {received} messages a day come to each, {sent} go out; in the busiest hour {peak} times the mean |
| when it is added | a mailbox has {history:,} messages |
| kept | raw, {kept_days} days |
"""

WATCHERS: Final = """\
- {mailboxes:,} ÷ {sessions:,} (`MAILWRIGHT_WATCH_SESSIONS`) = {processes:,.0f} processes
- {mailboxes:,} × {kib:g} KiB = {memory:.0f} GiB of memory for sessions
- from EXISTS to the committed event: {p50:,.0f} ms in the middle, {p99:,.0f} ms at the 99th percentile,
  at {rate:g} news a second on one machine
"""

POLLS: Final = """\
A quiet mailbox is polled every {longest:g} s (`MAILWRIGHT_POLL_MAX_SECONDS`), {times:g} times more rarely
while it is watched.

- {mailboxes:,} ÷ {pause:,.0f} s = {rate:,.0f} polls a second
- {rate:,.0f} ÷ {measured:,.0f} (`nothing_changed`) = {machines:.1f} machines
- {rate:,.0f} × {cpu:g} ms = {cores:.1f} cores in the workers alone
"""

NEWS: Final = """\
- {mailboxes:,} × {received} ÷ {day:,} s × {peak} = {rate:,.0f} messages a second in the busiest hour, each a
  sync of its own
- {rate:,.0f} × {cost:g} ms (`few_changed`) = {machines:.1f} machines
"""

OUTGOING: Final = """\
- {mailboxes:,} × {sent} ÷ {day:,} s × {peak} = {rate:,.0f} messages a second in the busiest hour
- {rate:,.0f} ÷ {measured:,.0f} (`outbound`) = {machines:.2f} machines
"""

FIRST_SYNCS: Final = """\
- {mailboxes:,} × {history:,} = {messages:,} messages
- {messages:,} ÷ {measured:,.0f} a second (`initial_sync`) ÷ {day:,} s = {days:,.0f} days of one machine
- {days:,.0f} ÷ 7 = {machines:.1f} machines add them all in a week; the newest mail of each comes first
"""

POSTGRES: Final = """\
A message of {mean:,} bytes takes {stored:,} with its rows, and {wal:,} of WAL.

- {messages:,} a day × {stored:,} bytes = {stored_tb:.2f} TB a day, × {kept_days} = {kept_tb:,.0f} TB
- {messages:,} a day × {wal:,} bytes = {wal_tb:.2f} TB of WAL a day; {wal_mb:,.0f} MB a second in the busiest
  hour
- where the raw message is not kept (`mailbox add --keep`), most of both is saved
"""

REDIS: Final = """\
- the stream holds {length:,} events (`MAILWRIGHT_EVENT_STREAM_LENGTH`) × about {event_bytes:,} bytes
  = {megabytes:,.0f} MB
- a message that comes has 2 events: {events:,.0f} a second in the busiest hour, so the stream holds
  {seconds:,.0f} s of them; who was away for longer reads on in the database (`event follow --after`)
- the queues hold no mail, only bells: one waits in each lane however many beats there are
"""

TAIL: Final = """\
## What no figure here tells

- A server far away makes a poll longer, not dearer: it takes a slot (`MAILWRIGHT_CONCURRENCY`) for as long
  and no processor. What providers allow, connections for an account and for a host, binds before all of this.
- How one Postgres does beyond the rates that were measured. Claims of one kind are made one at a time in a
  database (an advisory lock), which keeps caps exact and is where one database ends. Mailboxes know nothing
  of one another, so several databases, each with its workers and watchers, are several installations.
- News that come all at once. A watcher that dies leaves its mailboxes to the others, who compare INBOX with
  the cursor and wake only what changed; polls of what nobody watches begin within a minute, spread over it.
"""


def scale(mark: str) -> str:
    """The page; ``mark`` says how it is made."""
    parts: tuple[tuple[str, str, str, Callable[[Figures], Figures]], ...] = (
        ("Watchers", "watch", WATCHERS, _watchers),
        ("Polls", "nothing_changed", POLLS, _polls),
        ("News", "few_changed", NEWS, _news),
        ("Outgoing mail", "outbound", OUTGOING, _outgoing),
        ("First syncs", "initial_sync", FIRST_SYNCS, _first_syncs),
        ("Postgres", "initial_sync", POSTGRES, _postgres),
        ("Redis", "few_changed", REDIS, _redis),
    )
    page = [HEAD.format(mark=mark, **ASSUMED)]
    for title, bench, words, work_out in parts:
        measured = result_of(bench)
        said = (
            words.format(**ASSUMED, **work_out(measured)) if measured else f"`{bench}` is not measured yet.\n"
        )
        page.append(f"## {title}\n\n{said}")
    return "\n".join([*page, TAIL])


def _watchers(watch: Figures) -> Figures:
    sessions, kib = _default("watch_sessions"), watch["kib_per_session"]
    return {
        "sessions": sessions,
        "processes": MAILBOXES / sessions,
        "kib": kib,
        "memory": MAILBOXES * kib / 2**20,
        "p50": watch["p50_ms"],
        "p99": watch["p99_ms"],
        "rate": watch["setup"]["deliveries_per_second"],
    }


def _polls(nothing: Figures) -> Figures:
    longest = _default("poll_max_seconds")
    pause = longest * TIMES_WHEN_WATCHED
    rate = MAILBOXES / pause
    return {
        "longest": longest,
        "times": TIMES_WHEN_WATCHED,
        "pause": pause,
        "rate": rate,
        "measured": nothing["ours"],
        "machines": rate / nothing["ours"],
        "cpu": nothing["cpu_ms"],
        "cores": rate * nothing["cpu_ms"] / 1000,
    }


def _news(few: Figures) -> Figures:
    rate, cost = RECEIVED * MAILBOXES * PEAK / DAY, few["ms_per_changed"]
    return {"rate": rate, "cost": cost, "machines": rate * cost / 1000}


def _outgoing(outbound: Figures) -> Figures:
    rate = SENT * MAILBOXES * PEAK / DAY
    return {"rate": rate, "measured": outbound["ours"], "machines": rate / outbound["ours"]}


def _first_syncs(first: Figures) -> Figures:
    messages = MAILBOXES * HISTORY
    days = messages / first["ours"] / DAY
    return {"messages": messages, "measured": first["ours"], "days": days, "machines": days / 7}


def _postgres(first: Figures) -> Figures:
    messages = MAILBOXES * RECEIVED
    stored, wal = first["stored_bytes_per_message"], first["wal_bytes_per_message"]
    return {
        "messages": messages,
        "mean": first["setup"]["mean_bytes"],
        "stored": stored,
        "stored_tb": messages * stored / 1e12,
        "kept_tb": messages * stored * KEPT_DAYS / 1e12,
        "wal": wal,
        "wal_tb": messages * wal / 1e12,
        "wal_mb": messages * wal * PEAK / DAY / 1e6,
    }


def _redis(_: Figures) -> Figures:
    length, events = _default("event_stream_length"), 2 * RECEIVED * MAILBOXES * PEAK / DAY
    return {
        "length": length,
        "megabytes": length * EVENT_BYTES / 1e6,
        "events": events,
        "seconds": length / events,
    }


def _default(setting: str) -> Any:
    return Settings.model_fields[setting].default
