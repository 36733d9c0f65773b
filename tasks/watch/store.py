"""The watcher's side of Postgres, a transaction each."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks import schedule
from tasks.runtime import Runtime
from tasks.watch import queries
from tasks.watch.values import Claimed, Ended, Standing


@dataclass(frozen=True, slots=True)
class Crowd:
    """How many mailboxes there are to watch, and how many each of the other watchers can hold."""

    mailboxes: int
    others: tuple[int, ...]


def renew(runtime: Runtime, sessions: int, most: int) -> bool:
    """Say that this watcher lives, has so many sessions and can hold ``most``. False where it had been
    given up for dead, and what it watched is not its own any more."""
    lease = runtime.settings.watch_lease_seconds
    given = {"owner": runtime.owner, "lease": lease, "sessions": sessions, "most": most}
    with runtime.db.begin() as session:
        if session.execute(queries.RENEW, given).first() is not None:
            return True
        session.execute(queries.REGISTER, given)
        return False


def bury(runtime: Runtime, *, leaving: bool = False) -> int:
    """Free what dead watchers held, and what this one holds if it is ``leaving``. Returns how many died."""
    with runtime.db.begin() as session:
        dead = session.execute(queries.BURY, {"leaving": runtime.owner if leaving else None}).scalars().all()
        if dead:
            freed = session.execute(queries.INHERIT, {"owners": list(dead)}).scalars().all()
            schedule.unwatched(session, freed)
    return len(dead)


def enrol(runtime: Runtime, limit: int) -> None:
    """Get to know mailboxes that came since the last time."""
    with runtime.db.begin() as session:
        session.execute(queries.ENROL, {"limit": limit})


def claim(runtime: Runtime, limit: int) -> list[Claimed]:
    """Take up to ``limit`` free mailboxes."""
    with runtime.db.begin() as session:
        session.execute(queries.CLAIM_LOCK)
        rows = session.execute(queries.CLAIM, {"owner": runtime.owner, "limit": limit}).all()
    return [Claimed(row.mailbox_id, row.host, row.failures) for row in rows]


def crowd(runtime: Runtime) -> Crowd:
    """Look how many there are."""
    with runtime.db.begin() as session:
        row = session.execute(queries.CROWD, {"owner": runtime.owner}).one()
    return Crowd(row.mailboxes, tuple(row.others))


def held(runtime: Runtime) -> set[int]:
    """The mailboxes that are this watcher's to watch."""
    with runtime.db.begin() as session:
        return set(session.execute(queries.HELD, {"owner": runtime.owner}).scalars())


def give_back(runtime: Runtime, ended: Sequence[Ended]) -> None:
    """Free mailboxes, each for who comes after its pause."""
    with runtime.db.begin() as session:
        freed = session.execute(
            queries.GIVE_BACK,
            {
                "owner": runtime.owner,
                "mailboxes": [each.mailbox_id for each in ended],
                "failures": [each.failures for each in ended],
                "pauses": [each.pause for each in ended],
                "errors": [None if each.error is None else each.error[:500] for each in ended],
            },
        ).scalars()
        schedule.unwatched(session, freed.all())


def connected(runtime: Runtime, standings: Sequence[Standing]) -> list[int]:
    """Note sessions that have begun. Returns the mailboxes, ascending, that have changed since their last
    sync, as far as their INBOX tells."""
    with runtime.db.begin() as session:
        mailboxes = [each.mailbox_id for each in standings]
        session.execute(queries.CONNECTED, {"owner": runtime.owner, "mailboxes": mailboxes})
        return list(
            session.execute(
                queries.BEHIND,
                {
                    "mailboxes": mailboxes,
                    "uidvalidities": [each.uidvalidity for each in standings],
                    "uidnexts": [each.uidnext for each in standings],
                    "counts": [each.messages for each in standings],
                    "modseqs": [each.modseq for each in standings],
                },
            ).scalars()
        )


def wake(runtime: Runtime, mailboxes: Sequence[int]) -> None:
    """Make mailboxes due now."""
    with runtime.db.begin() as session:
        schedule.ask(session, mailboxes)
