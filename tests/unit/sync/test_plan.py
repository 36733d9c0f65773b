"""The planner never misses a change, and asks for little when nothing happened."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tasks.sync.plan import COMPARE_EVERY, DOUBT_FOR, RECONCILE_EVERY, plan_sync
from tasks.sync.ranges import Ranges
from tasks.sync.values import (
    ChangedSince,
    Cursor,
    Look,
    NewestFlags,
    Nothing,
    Resync,
    Seen,
    StartEpoch,
    Tracking,
)

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def cursor(**changes: object) -> Cursor:
    values: dict[str, object] = {
        "uidvalidity": 7,
        "uids": Ranges(((1, 10),)),
        "uidnext": 11,
        "messages": 10,
        "modseq": 50,
        "flags_checked_at": NOW,
        "compared_at": NOW,
    }
    return Cursor(**(values | changes))  # type: ignore[arg-type]


SAME = Seen(uidvalidity=7, uidnext=11, messages=10, highestmodseq=50)


def test_a_folder_without_cursor_starts_an_epoch() -> None:
    assert plan_sync(None, SAME, Tracking.CONDSTORE, NOW) == StartEpoch(7)


def test_a_new_uidvalidity_starts_an_epoch() -> None:
    assert plan_sync(cursor(uidvalidity=6), SAME, Tracking.CONDSTORE, NOW) == StartEpoch(7)


def test_the_same_numbers_ask_for_nothing_where_condstore_is_trusted() -> None:
    assert plan_sync(cursor(), SAME, Tracking.CONDSTORE, NOW) == Nothing()


def test_without_condstore_the_newest_flags_are_looked_at_each_time() -> None:
    plan = plan_sync(cursor(), SAME, Tracking.NONE, NOW)

    assert isinstance(plan, Look)
    assert isinstance(plan.flags, NewestFlags)
    assert not plan.compare


def test_an_empty_folder_without_condstore_asks_for_nothing() -> None:
    empty = cursor(uids=Ranges(), uidnext=1, messages=0)

    assert plan_sync(empty, Seen(7, 1, 0, None), Tracking.NONE, NOW) == Nothing()


def test_a_higher_modseq_asks_what_changed_since() -> None:
    plan = plan_sync(cursor(), Seen(7, 11, 10, 51), Tracking.CONDSTORE, NOW)

    assert plan == Look(holes=False, flags=ChangedSince(50), compare=False)


def test_a_modseq_that_went_back_is_not_believed() -> None:
    plan = plan_sync(cursor(), Seen(7, 11, 10, 49), Tracking.CONDSTORE, NOW)

    assert plan == Look(holes=False, flags=None, compare=True, doubt=True)


def test_fewer_messages_with_no_new_ones_compare_all() -> None:
    plan = plan_sync(cursor(), Seen(7, 11, 9, 51), Tracking.CONDSTORE, NOW)

    assert isinstance(plan, Look)
    assert plan.compare


def test_a_server_without_uidnext_is_looked_at() -> None:
    plan = plan_sync(cursor(uidnext=None), Seen(7, None, 10, 50), Tracking.CONDSTORE, NOW)

    assert isinstance(plan, Look)
    assert plan.holes


def test_everything_is_compared_now_and_then() -> None:
    late = plan_sync(cursor(), SAME, Tracking.CONDSTORE, NOW + RECONCILE_EVERY)
    plain = plan_sync(cursor(), SAME, Tracking.NONE, NOW + COMPARE_EVERY)

    assert isinstance(late, Look)
    assert late.compare
    assert isinstance(plain, Look)
    assert plain.compare


@given(
    st.integers(6, 8),
    st.none() | st.integers(1, 15),
    st.integers(0, 12),
    st.none() | st.integers(45, 55),
    st.sampled_from(Tracking),
    st.integers(0, 48),
)
def test_nothing_is_planned_only_when_every_number_agrees(
    uidvalidity: int, uidnext: int | None, messages: int, modseq: int | None, tracking: Tracking, hours: int
) -> None:
    stored = cursor()
    seen = Seen(uidvalidity, uidnext, messages, modseq)

    plan = plan_sync(stored, seen, tracking, NOW + timedelta(hours=hours))

    if isinstance(plan, Nothing):
        assert (seen.uidvalidity, seen.uidnext, seen.messages) == (7, 11, 10)
        assert seen.highestmodseq == 50
        assert tracking is not Tracking.NONE


def test_qresync_is_asked_for_flags_and_expunges_whatever_the_count() -> None:
    plan = plan_sync(cursor(), Seen(7, 11, 9, 51), Tracking.QRESYNC, NOW)

    assert plan == Look(holes=False, flags=Resync(50), compare=False)


def test_arrivals_without_a_higher_modseq_are_not_believed() -> None:
    for tracking in (Tracking.CONDSTORE, Tracking.QRESYNC):
        plan = plan_sync(cursor(), Seen(7, 12, 11, 50), tracking, NOW)

        assert plan == Look(holes=True, flags=None, compare=True, doubt=True)


def test_a_doubted_folder_is_looked_at_without_modseqs_for_a_day() -> None:
    doubted = cursor(doubted_at=NOW)

    soon = plan_sync(doubted, Seen(7, 11, 10, 51), Tracking.QRESYNC, NOW + timedelta(minutes=9))
    late = plan_sync(cursor(doubted_at=NOW - DOUBT_FOR), Seen(7, 11, 10, 51), Tracking.QRESYNC, NOW)

    assert isinstance(soon, Look)
    assert isinstance(soon.flags, NewestFlags)
    assert isinstance(late, Look)
    assert late.flags == Resync(50)


def test_where_passes_overlap_one_more_pass_asks_from_the_modseq_before() -> None:
    overlapping = cursor(modseq=50, modseq_before=47)

    assert plan_sync(overlapping, SAME, Tracking.CONDSTORE, NOW) == Look(False, ChangedSince(47), False)
    settled = cursor(modseq=50, modseq_before=50)
    assert plan_sync(settled, SAME, Tracking.CONDSTORE, NOW) == Nothing()
